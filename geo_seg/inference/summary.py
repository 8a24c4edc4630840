"""Summary of an inference run: tables for the terminal, and summary.json."""

import json
import math
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from geo_seg.raster.writer import write_error
from geo_seg.runtime.files import atomic_write
from geo_seg.runtime.redaction import short_names, strip_paths

SUMMARY_FILE = "summary.json"
"""File name of the summary in the output folder."""

_HECTARE = 10_000  # square metres
_PAUSE_FACTOR = 20  # pause between two writes relative to the time of a write: many maps take a while


@dataclass(frozen=True)
class MapRecord:
    """Numbers of one finished map.

    Attributes:
        file: the class raster.
        source: path of the input raster as given.
        counts: (classes,) pixels of each class.
        areas: (classes,) square metres of each class, or None without a CRS.
        pixels: of the raster, nodata included.
        seconds: duration of mapping it.
        warning: why the map may be wrong, or "".
    """

    file: Path
    source: str
    counts: NDArray[np.int64]
    areas: NDArray[np.float64] | None
    pixels: int
    seconds: float
    warning: str = ""


class Summary:
    """Collector of the finished and failed maps of a run.

    Args:
        folder: the output folder.
        names: of the classes.
        inputs: paths of the rasters; the summary lists them relative to their common folder.
        dry: whether to write nothing.
    """

    def __init__(
        self, folder: Path, names: tuple[str, ...], inputs: Sequence[str], dry: bool = False
    ) -> None:
        self._file = folder / SUMMARY_FILE
        self._inputs = short_names(inputs)
        self._names = names
        self._maps: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}
        self._earlier_maps: dict[str, dict[str, Any]] = {}
        self._next_write = math.inf if dry else 0.0  # earliest time of the next write (time.monotonic)
        with suppress(OSError, ValueError, KeyError, TypeError):  # no such file, or not a summary
            earlier_maps = json.loads(self._file.read_text())["maps"]
            self._earlier_maps = {
                name: entry for name, entry in earlier_maps.items() if set(entry["classes"]) == {*names}
            }

    def add(self, name: str, record: MapRecord) -> None:
        """Add a finished map."""
        areas = None if record.areas is None else record.areas / _HECTARE
        self._maps[name] = {
            "input": self._inputs[record.source],
            "file": record.file.name,
            **({"warning": record.warning} if record.warning else {}),
            **_speed(record.pixels, record.seconds),
            "skipped_share": 1 - int(record.counts.sum()) / record.pixels,
            "classes": {
                key: {"pixels": int(record.counts[i]), "hectares": None if areas is None else float(areas[i])}
                for i, key in enumerate(self._names)
            },
        }

    def add_skipped(self, name: str) -> None:
        """Add a map that existed already, with its entry in the summary of an earlier run."""
        if name in self._earlier_maps:
            self._maps[name] = self._earlier_maps[name]

    def fail(self, source: str, reason: str) -> None:
        """Add a raster that failed."""
        replacements = {**self._inputs, f"{self._file.parent}/": ""}
        self._failed[self._inputs[source]] = strip_paths(reason, replacements)

    def write_if_due(self) -> None:
        """Write the current state, unless writing would take more than a twentieth of the time.

        Unfinished maps keep their entries of an earlier run.

        Raises:
            DataError: writing fails.
        """
        begin = time.monotonic()
        if begin >= self._next_write:
            self._write_json({**self._earlier_maps, **self._maps})
            end = time.monotonic()
            self._next_write = end + _PAUSE_FACTOR * (end - begin)

    def write(self, console: Console) -> None:
        """Print the tables and write the file.

        Raises:
            DataError: writing fails.
        """
        total = _total(self._maps.values(), self._names)
        if len(self._maps) > 1:
            console.print(self._map_table(total))
        if self._maps:
            console.print(self._class_table(total))
        self._write_json(self._maps)

    def _write_json(self, maps: dict[str, dict[str, Any]]) -> None:
        if not self._maps and not self._failed:
            return
        total = _total(maps.values(), self._names)
        content = {"maps": maps, "failed": self._failed, "total": total}
        try:
            atomic_write(self._file, json.dumps(content, indent=1), fsync=True)
        except OSError as error:
            raise write_error(self._file, error) from error

    def _map_table(self, total: dict[str, Any]) -> Table:
        table = Table(title=f"{len(self._maps)} maps")
        table.add_column("map")
        for column in ("Mpx", "seconds", "Mpx/s", "skipped"):
            table.add_column(column, justify="right")
        for name, entry in (*self._maps.items(), ("all", total)):
            numbers = (entry["pixels"] / 1e6, entry["seconds"], entry["megapixels_per_second"])
            table.add_row(name, *(f"{number:,.2f}" for number in numbers), f"{entry['skipped_share']:.1%}")
        return table

    def _class_table(self, total: dict[str, Any]) -> Table:
        table = Table(title="classes")
        table.add_column("class")
        for column in ("pixels", "hectares", "share"):
            table.add_column(column, justify="right")
        valid_pixels = sum(entry["pixels"] for entry in total["classes"].values())
        for name, entry in total["classes"].items():
            area = "–" if entry["hectares"] is None else f"{entry['hectares']:,.2f}"
            share = f"{entry['pixels'] / valid_pixels:.1%}" if valid_pixels else "–"
            table.add_row(name, f"{entry['pixels']:,}", area, share)
        return table


def _total(maps: Collection[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    pixels, seconds = (sum(entry[key] for entry in maps) for key in ("pixels", "seconds"))
    valid_pixels = 0
    classes = {}
    for name in names:
        entries = [entry["classes"][name] for entry in maps]
        count, areas = sum(e["pixels"] for e in entries), [e["hectares"] for e in entries]
        classes[name] = {"pixels": count, "hectares": None if None in areas else sum(areas)}
        valid_pixels += count
    share = 1 - valid_pixels / pixels if pixels else 0.0
    return {**_speed(pixels, seconds), "skipped_share": share, "classes": classes}


def _speed(pixels: int, seconds: float) -> dict[str, float]:
    rate = pixels / 1e6 / seconds if seconds else 0.0
    return {"pixels": pixels, "seconds": round(seconds, 3), "megapixels_per_second": round(rate, 4)}
