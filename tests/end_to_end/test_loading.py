"""Whole runs on files with holes: what couldn't be read is counted in the report."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.conftest import Run, draw_scene, small_overrides, write_raster


@pytest.mark.slow
def test_windows_that_cannot_be_read_are_ignored_and_counted_in_the_report(tmp_path: Path, run: Run) -> None:
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"}
    for seed in range(6):
        image, mask = draw_scene(seed, 512, 512)
        write_raster(tmp_path / "images" / f"s{seed}.tif", image, nodata=0, compress="deflate", **tiles)
        write_raster(tmp_path / "masks" / f"s{seed}.tif", mask)
    path = tmp_path / "images" / "s5.tif"
    with rasterio.open(path) as source:
        offset = int(source.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
    content = np.fromfile(path, np.uint8)
    content[offset : offset + 64] = 255
    content.tofile(path)
    # all is drawn at one place
    options = [*small_overrides(tmp_path), f"hydra.run.dir={tmp_path / 'run'}", "dataset.allow_leakage=true"]
    stopped = run("train.py", *options)
    assert stopped.returncode == 2
    assert "images/s5.tif: rows 0-255, columns 0-511 cannot be read" in stopped.stderr
    done = run("train.py", *options, "dataset.on_read_error=ignore")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["unreadable"] == {"images/s5.tif": 1}
    assert found["test"]["pixels"] == 512 * 512 - 512 * 7 - 256 * 256
    assert "images/s5.tif (1)" in (tmp_path / "run" / "report.html").read_text()
