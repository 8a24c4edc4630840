"""The examination on the console and on a page of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rasterio.crs import CRS
from rich.console import Console
from rich.table import Table

from geo_seg.doctor.contact_sheet import Sample, sample_pictures
from geo_seg.doctor.examine import DataReport
from geo_seg.report import html_page
from geo_seg.report.pictures import encode_panels
from geo_seg.runtime.files import atomic_write
from losses.class_weights import class_weights


class TableData(NamedTuple):
    """Content of a table.

    Attributes:
        title: title of the table.
        caption: description of the numbers.
        head: names of the columns.
        rows: texts of the cells.
    """

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def build_tables(report: DataReport) -> list[TableData]:
    """Return the tables of splits, classes and bands."""
    return [_split_table(report), _class_table(report), _band_table(report)]


def print_report(report: DataReport, console: Console) -> None:
    """Print tables, problems, warnings and suggestions."""
    for content in build_tables(report):
        table = Table(title=content.title, title_justify="left")
        for number, name in enumerate(content.head):
            table.add_column(name, justify="right" if number else "left")
        for row in content.rows:
            table.add_row(*row)
        console.print(table)
    for title, lines in _lists(report):
        console.print(f"{title}:", style="bold", markup=False)
        for number, line in enumerate(lines, 1):
            console.print(f"{number}. {line}", markup=False, soft_wrap=True)


def write_page(report: DataReport, file: Path, samples: Sequence[Sample]) -> None:
    """Write the self-contained HTML page."""
    sections = []
    for heading, lines in _lists(report):
        items = "".join(f"<li>{html_page.text(line)}</li>" for line in lines)
        sections.append((heading, f"<ol>{items}</ol>"))
    sections += [
        (content.title, html_page.table(content.caption, content.head, content.rows))
        for content in build_tables(report)
    ]
    sections.append(("Images and labels", _pictures(report, samples)))
    atomic_write(file, html_page.render_page(f"{report.config.name}: data check", "", sections))


def _pictures(report: DataReport, samples: Sequence[Sample]) -> str:
    """Return the contact sheet as HTML, pairs below each other in a narrow window."""
    parts = [html_page.legend(report.table.colors, report.table.names)]
    for sample in samples:
        title = f"{sample.split}: {sample.scene.name}"
        panes = (
            html_page.image(data, f"{name} of {title}", name, "pane")
            for name, data in encode_panels(sample_pictures(report, sample))
        )
        parts.append(f"<h3>{html_page.text(title)}</h3>{html_page.row(panes)}")
    return "".join(parts)


def _lists(report: DataReport) -> list[tuple[str, Sequence[str]]]:
    problems = report.problems or ["nothing: this data set can be trained on"]
    titled_lists = [
        ("To mend", problems),
        ("To look at", report.warnings),
        ("To put into the YAML", report.suggestions),
    ]
    return [(title, lines) for title, lines in titled_lists if lines]


def _split_table(report: DataReport) -> TableData:
    rows = []
    for name, scenes in report.scenes.items():
        counts = [index.class_counts for index in report.index[name]]
        pixels, valid = (
            sum(scene_counts.pixels for scene_counts in counts),
            sum(scene_counts.valid for scene_counts in counts),
        )
        sizes = sorted({(scene.image.height, scene.image.width) for scene in scenes})
        crs_names = sorted({_crs_name(scene.image.crs) for scene in scenes})
        rows.append(
            [
                name,
                str(len(scenes)),
                f"{pixels:,}",
                f"{1 - valid / pixels:.1%}" if pixels else "-",
                f"{int(report.counts(name).sum()) / pixels:.1%}" if pixels else "-",
                "x".join(map(str, sizes[0])) + (f" to {'x'.join(map(str, sizes[-1]))}" if sizes[1:] else ""),
                ", ".join(sorted({scene.image.dtype for scene in scenes})),
                ", ".join(crs_names[:3]) + (f" and {len(crs_names) - 3} more" if crs_names[3:] else ""),
            ]
        )
    return TableData(
        "Splits",
        "Scenes of each split, and the fractions of its pixels that are nodata or have a label.",
        ("split", "scenes", "pixels", "nodata", "labelled", "rows x columns", "type", "CRS"),
        rows,
    )


def _class_table(report: DataReport) -> TableData:
    counts = {name: report.counts(name) for name in report.scenes}
    train = counts[report.training_split]
    weights = class_weights(train.tolist()) if train.any() else [0.0] * len(train)
    rows = []
    for number, name in enumerate(report.table.names):
        scenes_with_class = sum(bool(index.cells[..., number].any()) for _, index in report.pairs)
        shares = [f"{n[number] / n.sum():.2%}" if n.any() else "-" for n in counts.values()]
        rows.append([name, *shares, f"{scenes_with_class} of {len(report.pairs)}", f"{weights[number]:.3g}"])
    return TableData(
        "Classes",
        "Fraction of the labelled pixels in each split.",
        ("class", *counts, "scenes that have it", "weight by frequency"),
        rows,
    )


def _band_table(report: DataReport) -> TableData:
    statistics = [index.bands for _, index in report.pairs if index.bands.pixels]
    scene = report.pairs[0][0]
    names = dict(zip(scene.image.bands, scene.image.names, strict=True))
    rows = []
    for number, band in enumerate(scene.bands):
        with_band = [band_statistics for band_statistics in statistics if len(band_statistics.mean) > number]
        total = sum(band_statistics.pixels for band_statistics in with_band)
        if not total:
            continue
        mean = (
            sum(band_statistics.pixels * band_statistics.mean[number] for band_statistics in with_band)
            / total
        )
        low, high = (
            min(band_statistics.low[number] for band_statistics in with_band),
            max(band_statistics.high[number] for band_statistics in with_band),
        )
        percentiles = [
            sum(
                band_statistics.pixels * band_statistics.quantiles[number, position]
                for band_statistics in with_band
            )
            / total
            for position in (4, -5)
        ]
        rows.append(
            [
                names.get(band) or str(band),
                *(f"{v:.5g}" for v in (low, percentiles[0], mean, percentiles[1], high)),
            ]
        )
    return TableData(
        "Bands",
        "Values of the valid pixels.",
        ("band", "least", "low (2 %)", "mean", "high (98 %)", "largest"),
        rows,
    )


def _crs_name(crs: str | None) -> str:
    if crs is None:
        return "none"
    parsed_crs = CRS.from_wkt(crs)
    code = parsed_crs.to_epsg()
    return f"EPSG:{code}" if code else parsed_crs.to_string()[:30]
