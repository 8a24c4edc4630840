"""Sidecar files of class rasters: names and colours for GDAL (.aux.xml) and QGIS (.qml)."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

Color = tuple[int, int, int]

STYLES = "layer_styles"
"""The table of a GeoPackage in which QGIS looks for styles."""

_QGIS_FILE = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"  # QGIS reads no style without it


def pam_path(raster: Path) -> Path:
    """Return the path of the PAM file (.aux.xml) of a raster."""
    return raster.with_name(f"{raster.name}.aux.xml")


def qml_path(raster: Path) -> Path:
    """Return the path of the QGIS style (.qml) of a raster."""
    return raster.with_suffix(".qml")


def write_class_sidecars(raster: Path, names: Sequence[str], colors: Sequence[Color]) -> None:
    """Write attribute table and QGIS style of a class raster.

    Args:
        raster: of class ids.
        names: per class.
        colors: per class, red, green and blue from 0 to 255.

    Raises:
        OSError: the disk refuses.
    """
    ET.ElementTree(attribute_table(names, colors)).write(pam_path(raster), encoding="utf-8")
    qml_path(raster).write_bytes(_QGIS_FILE + ET.tostring(qgis_style(names, colors), encoding="utf-8"))


def write_gray_style(raster: Path, brightest: float) -> None:
    """Write a QGIS style that shows the first band in gray, instead of three bands as colours.

    Args:
        raster: of numbers from 0 on.
        brightest: the number that is shown white.

    Raises:
        OSError: the disk refuses.
    """
    root = ET.Element("qgis", version="3.16.0", styleCategories="Symbology")
    fixed = {"type": "singlebandgray", "grayBand": "1", "gradient": "BlackToWhite"}
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"), "rasterrenderer", fixed, opacity="1", alphaBand="-1"
    )
    contrast = ET.SubElement(renderer, "contrastEnhancement")
    for key, value in (("minValue", "0"), ("maxValue", f"{brightest:g}")):
        ET.SubElement(contrast, key).text = value
    ET.SubElement(contrast, "algorithm").text = "StretchToMinimumMaximum"
    ET.indent(root)
    qml_path(raster).write_bytes(_QGIS_FILE + ET.tostring(root, encoding="utf-8"))


def attribute_table(names: Sequence[str], colors: Sequence[Color]) -> ET.Element:
    """Return the content of `<raster>.aux.xml`, where GDAL and QGIS look for the classes of a band.

    Args:
        names: per class.
        colors: per class, red, green and blue from 0 to 255.
    """
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    categories = ET.SubElement(band, "CategoryNames")
    for name in names:
        ET.SubElement(categories, "Category").text = name
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    # names, and the numbers of GDAL's field types (integer, string) and usages (min and max, name, red ...)
    columns = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    for index, (title, kind, usage) in enumerate(columns):
        column = ET.SubElement(table, "FieldDefn", index=str(index))
        for key, value in (("Name", title), ("Type", kind), ("Usage", usage)):
            ET.SubElement(column, key).text = str(value)
    for index, (name, color) in enumerate(zip(names, colors, strict=True)):
        row = ET.SubElement(table, "Row", index=str(index))
        for value in (index, name, *color):
            ET.SubElement(row, "F").text = str(value)
    ET.indent(root)
    return root


def qgis_style(names: Sequence[str], colors: Sequence[Color]) -> ET.Element:
    """Return the content of `<raster without suffix>.qml`: class colours and names for QGIS.

    Args:
        names: per class.
        colors: per class, red, green and blue from 0 to 255.
    """
    root = ET.Element("qgis", version="3.16.0", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, (name, (red, green, blue)) in enumerate(zip(names, colors, strict=True)):
        entry = {"value": str(value), "color": f"#{red:02x}{green:02x}{blue:02x}", "alpha": "255"}
        ET.SubElement(palette, "paletteEntry", entry, label=name)
    ET.SubElement(root, "blendMode").text = "0"
    ET.indent(root)
    return root


def layer_style_row(
    layer: str, column: str, names: Sequence[str], colors: Sequence[Color]
) -> dict[str, object]:
    """Return the row of layer_styles with the QGIS style of a layer of a GeoPackage.

    Args:
        layer: its name.
        column: of the features' classes.
        names: per class.
        colors: per class, red, green and blue from 0 to 255.
    """
    root = ET.Element("qgis", version="3.16.0", styleCategories="Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=column)
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for value, (name, color) in enumerate(zip(names, colors, strict=True)):
        number = str(value)
        ET.SubElement(categories, "category", value=number, symbol=number, label=name, render="true")
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=number, alpha="1")
        fill = {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
        properties = {"color": ",".join(map(str, (*color, 255))), "style": "solid", "outline_style": "no"}
        drawn = ET.SubElement(symbol, "layer", fill)
        for key, content in properties.items():
            ET.SubElement(drawn, "prop", k=key, v=content)
    ET.indent(root)
    return {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": layer,
        "f_geometry_column": "geom",
        "styleName": layer,
        "styleQML": (_QGIS_FILE + ET.tostring(root, encoding="utf-8")).decode(),
        "styleSLD": "",
        "useAsDefault": True,
        "description": "",
        "owner": "",
        "ui": "",
    }
