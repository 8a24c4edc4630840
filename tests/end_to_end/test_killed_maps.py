"""Killed at any write, rename or removal, the same command makes the same files."""

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geo_seg.prediction import planner
from geo_seg.raster.writer import RowWriter
from tests.conftest import write_raster
from tests.end_to_end.test_faults import same
from tests.end_to_end.test_inference import LIMIT, draw, predict, read
from tests.end_to_end.test_several_maps import knowing, numbers

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Shim:
    """Counts what changes a folder, and kills this process before the n-th change; none for 0.

    Python tells of every file that is opened for writing, renamed or removed; of what GDAL writes on its own,
    the blocks of parts are counted.
    """

    def __init__(self, folder: Path, at: int) -> None:
        self.count = 0
        self._folder = str(folder)
        self._at = at
        sys.addaudithook(self._hear)
        true = RowWriter._flush

        def counted(writer: RowWriter) -> None:
            self._change()
            true(writer)
            self._change()

        RowWriter._flush = counted  # type: ignore[method-assign]

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            inside = isinstance(given[-1], int) and given[-1] >= 0  # named relative to an open folder
            if inside or str(given[0]).startswith(self._folder):
                self._change()
        elif event == "open" and given[2] & _WRITING and str(given[0]).startswith(self._folder):
            self._change()

    def _change(self) -> None:
        self.count += 1
        if self.count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def make(folder: Path, output: str, at: int) -> None:
    """Maps two rasters, the first one in two parts, with all that may lie beside a map."""
    planner._MIN_PART_ROWS = 1
    shim = Shim(folder / output, at)
    beside = {"probabilities": "top", "polygons": True, "labels": str(folder / "labels")}
    predict(folder / "in", folder / output, knowing(), overlap=0, **beside)
    (folder / "count").write_text(str(shim.count))


@pytest.mark.slow
@pytest.mark.fault("resume", "a kill at any write of a map, then the same command: the same bytes")
@pytest.mark.parametrize("turn", range(4))  # for several processes
def test_killed_at_every_write_the_same_command_gives_the_same_bytes(tmp_path: Path, turn: int) -> None:
    for name, height in (("a", 128), ("b", 64)):
        image = write_raster(tmp_path / "in" / f"{name}.tif", draw((2, height, 64)))
        write_raster(tmp_path / "labels" / f"{name}.tif", (read(image)[0] > LIMIT * 0.9).astype(np.uint8))
    context = multiprocessing.get_context("forkserver")  # its children needn't import torch
    context.set_forkserver_preload([__name__])

    def run(output: str, at: int = 0) -> int | None:
        process = context.Process(target=make, args=(tmp_path, output, at))
        process.start()
        process.join()
        return process.exitcode

    assert run("whole") == 0
    changes = int((tmp_path / "count").read_text())
    assert changes > 100
    for at in range(1 + turn, changes + 1, 4):
        assert run("maps", at) == -signal.SIGKILL, at
        for final in (tmp_path / "maps").glob("*.tif"):
            assert final.read_bytes() == (tmp_path / "whole" / final.name).read_bytes(), at
        assert run("maps") == 0, at
        same(tmp_path / "maps", tmp_path / "whole")
        for file in ("summary.json", "metrics.json"):
            assert numbers(tmp_path / "maps", file) == numbers(tmp_path / "whole", file), at
        shutil.rmtree(tmp_path / "maps")
