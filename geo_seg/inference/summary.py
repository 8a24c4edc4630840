"""What a run of inference made: a table for whoever watches, and summary.json for whoever comes later."""

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

FILE = "summary.json"
"""Where it goes, beside the maps."""

_HECTARE = 10_000  # square metres
_PAUSE = 20  # times as long as writing took: of thousands of maps it takes a while


@dataclass(frozen=True)
class MapRecord:
    """One finished map.

    Attributes:
        file: the class raster.
        source: the raster that it is of.
        counts: (classes,) pixels of each class.
        areas: (classes,) square metres of each class, or None without a CRS.
        pixels: of the raster, nodata included.
        seconds: that it took.
        warning: why it is not to be trusted, or "".
    """

    file: Path
    source: str
    counts: NDArray[np.int64]
    areas: NDArray[np.float64] | None
    pixels: int
    seconds: float
    warning: str = ""


class Summary:
    """Everything that a run made, or failed to.

    Args:
        folder: of the maps.
        names: of the classes.
        inputs: paths of the rasters, which are named without the folders that they share.
        dry: whether nothing is written.
    """

    def __init__(
        self, folder: Path, names: tuple[str, ...], inputs: Sequence[str], dry: bool = False
    ) -> None:
        self._file = folder / FILE
        self._inputs = short_names(inputs)
        self._names = names
        self._maps: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}
        self._before: dict[str, dict[str, Any]] = {}
        self._due = math.inf if dry else 0.0  # when it is written next, by the clock of time.monotonic
        with suppress(OSError, ValueError, KeyError, TypeError):  # there is none, or none of ours
            known = json.loads(self._file.read_text())["maps"]
            self._before = {name: entry for name, entry in known.items() if set(entry["classes"]) == {*names}}

    def add(self, name: str, mapped: MapRecord) -> None:
        """Takes a map in."""
        areas = None if mapped.areas is None else mapped.areas / _HECTARE
        self._maps[name] = {
            "input": self._inputs[mapped.source],
            "file": mapped.file.name,
            **({"warning": mapped.warning} if mapped.warning else {}),
            **_speed(mapped.pixels, mapped.seconds),
            "skipped_share": 1 - int(mapped.counts.sum()) / mapped.pixels,
            "classes": {
                key: {"pixels": int(mapped.counts[i]), "hectares": None if areas is None else float(areas[i])}
                for i, key in enumerate(self._names)
            },
        }

    def add_skipped(self, name: str) -> None:
        """Takes a map in that was there already, with what an earlier run said of it."""
        if name in self._before:
            self._maps[name] = self._before[name]

    def fail(self, source: str, reason: str) -> None:
        """Takes in that a raster was not mapped."""
        known = {**self._inputs, f"{self._file.parent}/": ""}
        self._failed[self._inputs[source]] = strip_paths(reason, known)

    def keep_up(self) -> None:
        """Write it as it is now, unless that would take more than a twentieth of the time.

        Maps that aren't done yet keep what an earlier run said of them.

        Raises:
            DataError: it can't be written.
        """
        begin = time.monotonic()
        if begin >= self._due:
            self._write({**self._before, **self._maps})
            end = time.monotonic()
            self._due = end + _PAUSE * (end - begin)

    def conclude(self, console: Console) -> None:
        """Shows it, and writes it.

        Raises:
            DataError: it can't be written.
        """
        total = _total(self._maps.values(), self._names)
        if len(self._maps) > 1:
            console.print(self._table_of_maps(total))
        if self._maps:
            console.print(self._table_of_classes(total))
        self._write(self._maps)

    def _write(self, maps: dict[str, dict[str, Any]]) -> None:
        if not self._maps and not self._failed:
            return
        total = _total(maps.values(), self._names)
        content = {"maps": maps, "failed": self._failed, "total": total}
        try:
            atomic_write(self._file, json.dumps(content, indent=1), fsync=True)
        except OSError as error:
            raise write_error(self._file, error) from error

    def _table_of_maps(self, total: dict[str, Any]) -> Table:
        table = Table(title=f"{len(self._maps)} maps")
        table.add_column("map")
        for column in ("Mpx", "seconds", "Mpx/s", "skipped"):
            table.add_column(column, justify="right")
        for name, entry in (*self._maps.items(), ("all", total)):
            numbers = (entry["pixels"] / 1e6, entry["seconds"], entry["megapixels_per_second"])
            table.add_row(name, *(f"{number:,.2f}" for number in numbers), f"{entry['skipped_share']:.1%}")
        return table

    def _table_of_classes(self, total: dict[str, Any]) -> Table:
        table = Table(title="classes")
        table.add_column("class")
        for column in ("pixels", "hectares", "share"):
            table.add_column(column, justify="right")
        mapped = sum(entry["pixels"] for entry in total["classes"].values())
        for name, entry in total["classes"].items():
            area = "–" if entry["hectares"] is None else f"{entry['hectares']:,.2f}"
            share = f"{entry['pixels'] / mapped:.1%}" if mapped else "–"
            table.add_row(name, f"{entry['pixels']:,}", area, share)
        return table


def _total(maps: Collection[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    pixels, seconds = (sum(entry[key] for entry in maps) for key in ("pixels", "seconds"))
    mapped = 0
    classes = {}
    for name in names:
        found = [entry["classes"][name] for entry in maps]
        count, areas = sum(f["pixels"] for f in found), [f["hectares"] for f in found]
        classes[name] = {"pixels": count, "hectares": None if None in areas else sum(areas)}
        mapped += count
    share = 1 - mapped / pixels if pixels else 0.0
    return {**_speed(pixels, seconds), "skipped_share": share, "classes": classes}


def _speed(pixels: int, seconds: float) -> dict[str, float]:
    rate = pixels / 1e6 / seconds if seconds else 0.0
    return {"pixels": pixels, "seconds": round(seconds, 3), "megapixels_per_second": round(rate, 4)}
