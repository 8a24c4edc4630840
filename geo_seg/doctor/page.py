"""The findings on the terminal and on a page of their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rasterio.crs import CRS
from rich.console import Console
from rich.table import Table

from geo_seg.doctor.contact_sheet import Sample, sample_pictures
from geo_seg.doctor.examine import DataReport
from geo_seg.report import html_page as markup
from geo_seg.report.pictures import encode_panels
from geo_seg.runtime.files import atomic_write
from losses.class_weights import class_weights


class TableData(NamedTuple):
    """A table.

    Attributes:
        title: what it is of.
        caption: what it shows.
        head: of the columns.
        rows: texts.
    """

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def build_tables(found: DataReport) -> list[TableData]:
    """Splits, classes and bands."""
    return [_splits(found), _classes(found), _bands(found)]


def print_report(found: DataReport, console: Console) -> None:
    """Prints tables, problems, warnings and suggestions."""
    for grid in build_tables(found):
        table = Table(title=grid.title, title_justify="left")
        for number, name in enumerate(grid.head):
            table.add_column(name, justify="right" if number else "left")
        for row in grid.rows:
            table.add_row(*row)
        console.print(table)
    for title, lines in _lists(found):
        console.print(f"{title}:", style="bold", markup=False)
        for number, line in enumerate(lines, 1):
            console.print(f"{number}. {line}", markup=False, soft_wrap=True)


def write_page(found: DataReport, file: Path, samples: Sequence[Sample]) -> None:
    """Writes a page that needs no other file."""
    sections = []
    for heading, lines in _lists(found):
        items = "".join(f"<li>{markup.text(line)}</li>" for line in lines)
        sections.append((heading, f"<ol>{items}</ol>"))
    sections += [
        (grid.title, markup.table(grid.caption, grid.head, grid.rows)) for grid in build_tables(found)
    ]
    sections.append(("Images and labels", _pictures(found, samples)))
    atomic_write(file, markup.render_page(f"{found.config.name}: data check", "", sections))


def _pictures(found: DataReport, samples: Sequence[Sample]) -> str:
    """The contact sheet, a pair of pictures below the other where the window is narrow."""
    parts = [markup.legend(found.table.colors, found.table.names)]
    for sample in samples:
        title = f"{sample.split}: {sample.scene.name}"
        panes = (
            markup.image(data, f"{name} of {title}", name, "pane")
            for name, data in encode_panels(sample_pictures(found, sample))
        )
        parts.append(f"<h3>{markup.text(title)}</h3>{markup.row(panes)}")
    return "".join(parts)


def _lists(found: DataReport) -> list[tuple[str, Sequence[str]]]:
    problems = found.problems or ["nothing: this data set can be trained on"]
    listed = [
        ("To mend", problems),
        ("To look at", found.warnings),
        ("To put into the YAML", found.suggestions),
    ]
    return [(title, lines) for title, lines in listed if lines]


def _splits(found: DataReport) -> TableData:
    rows = []
    for name, scenes in found.scenes.items():
        counts = [index.class_counts for index in found.index[name]]
        pixels, valid = sum(own.pixels for own in counts), sum(own.valid for own in counts)
        sizes = sorted({(scene.image.height, scene.image.width) for scene in scenes})
        systems = sorted({_system(scene.image.crs) for scene in scenes})
        rows.append(
            [
                name,
                str(len(scenes)),
                f"{pixels:,}",
                f"{1 - valid / pixels:.1%}" if pixels else "-",
                f"{int(found.counts(name).sum()) / pixels:.1%}" if pixels else "-",
                "x".join(map(str, sizes[0])) + (f" to {'x'.join(map(str, sizes[-1]))}" if sizes[1:] else ""),
                ", ".join(sorted({scene.image.dtype for scene in scenes})),
                ", ".join(systems[:3]) + (f" and {len(systems) - 3} more" if systems[3:] else ""),
            ]
        )
    return TableData(
        "Splits",
        "Scenes of each split, and how many of the pixels that it has of them are nodata or have a label.",
        ("split", "scenes", "pixels", "nodata", "labelled", "rows x columns", "type", "CRS"),
        rows,
    )


def _classes(found: DataReport) -> TableData:
    counts = {name: found.counts(name) for name in found.scenes}
    train = counts[found.training]
    weights = class_weights(train.tolist()) if train.any() else [0.0] * len(train)
    rows = []
    for number, name in enumerate(found.table.names):
        holding = sum(bool(index.cells[..., number].any()) for _, index in found.pairs)
        shares = [f"{n[number] / n.sum():.2%}" if n.any() else "-" for n in counts.values()]
        rows.append([name, *shares, f"{holding} of {len(found.pairs)}", f"{weights[number]:.3g}"])
    return TableData(
        "Classes",
        "Share of the labelled pixels in each split.",
        ("class", *counts, "scenes that have it", "weight by frequency"),
        rows,
    )


def _bands(found: DataReport) -> TableData:
    seen = [index.bands for _, index in found.pairs if index.bands.pixels]
    scene = found.pairs[0][0]
    names = dict(zip(scene.image.bands, scene.image.names, strict=True))
    rows = []
    for number, band in enumerate(scene.bands):
        same = [part for part in seen if len(part.mean) > number]
        total = sum(part.pixels for part in same)
        if not total:
            continue
        mean = sum(part.pixels * part.mean[number] for part in same) / total
        low, high = min(part.low[number] for part in same), max(part.high[number] for part in same)
        usual = [sum(part.pixels * part.quantiles[number, at] for part in same) / total for at in (4, -5)]
        rows.append(
            [names.get(band) or str(band), *(f"{v:.5g}" for v in (low, usual[0], mean, usual[1], high))]
        )
    return TableData(
        "Bands",
        "Values of the valid pixels.",
        ("band", "least", "low (2 %)", "mean", "high (98 %)", "largest"),
        rows,
    )


def _system(crs: str | None) -> str:
    if crs is None:
        return "none"
    found = CRS.from_wkt(crs)
    code = found.to_epsg()
    return f"EPSG:{code}" if code else found.to_string()[:30]
