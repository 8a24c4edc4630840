"""resolution= lets the model see other pixels than the raster's; the map lies on the raster's grid."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import losses
from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.errors import DataError
from geo_seg.models.layers import Normalize
from geo_seg.prediction.resample import ResolutionScale, scale_for
from geo_seg.raster.reader import read_info
from geo_seg.tiling import BlendSpec
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, draw, facts, predict, read, threshold
from tests.end_to_end.test_unfinished_maps import StopError, stop_after


def blocks(height: int, width: int, side: int, seed: int = 0) -> np.ndarray:
    """Two bands of uniform squares, pixels of 2 map units."""
    shape = (2, -(-height // side), -(-width // side))
    return draw(shape, seed).repeat(side, 1).repeat(side, 2)[:, :height, :width]


class Size(nn.Module):
    """Class 1 where neighbours differ: fine stripes seen at their own size, not blurred ones."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        differ = (image[:, :1] - torch.roll(image[:, :1], 1, -1)).abs() > 500
        score = differ.float() * 80 - 40
        return torch.cat([-score, score], 1)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([4, 8, 1, 3.1, 1.3]), st.integers(0, 8))
def test_squares_far_larger_than_pixels_keep_their_class_inside_at_any_resolution_and_size(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, resolution: float, margin: int
) -> None:
    folder = tmp_path_factory.mktemp("maps")
    image = blocks(height, width, 48)
    image[:, : height // 4, : width // 3] = 0
    write_raster(folder / "image.tif", image, nodata=0)
    predict(folder / "image.tif", folder, resolution=resolution, margin=margin)
    found = read(folder / "image_classes.tif")[0]
    valid = (image != 0).any(0)
    np.testing.assert_array_equal(found == 255, ~valid)  # nodata is that of the raster, to the pixel
    rows, cols = (np.arange(n) % 48 for n in (height, width))
    inside = np.outer((rows >= 12) & (rows < 36), (cols >= 12) & (cols < 36)) & valid
    inside[: height // 4 + 8, : width // 3 + 8] = False  # squares that nodata cuts are means of what is left
    np.testing.assert_array_equal(found[inside], (image[0] > LIMIT)[inside])


def test_the_model_sees_pixels_of_that_size(tmp_path: Path) -> None:
    stripes = np.where(np.arange(256) % 2, 900, 100) * np.ones((2, 128, 1))
    source = write_raster(tmp_path / "image.tif", stripes.astype(np.uint16))
    known = facts()
    found = Checkpoint(
        Path("x"), known, losses.Task("multiclass", 2), Size(), Normalize(known.mean, known.std)
    )
    for resolution, share in ((None, 1), (2, 1), (8, 0)):
        predict(source, tmp_path, found, resolution=resolution)
        assert (read(tmp_path / "image_classes.tif")[0, :, 8:] == share).all()


def test_what_is_nodata_has_no_part_in_the_mean(tmp_path: Path) -> None:
    image = np.full((2, 64, 64), LIMIT + 10, np.float32)
    image[:, ::2] = np.nan
    source = write_raster(tmp_path / "image.tif", image)
    predict(source, tmp_path, threshold(dtype="float32"), resolution=8)
    expected = np.where(np.isnan(image[0]), 255, 1)
    np.testing.assert_array_equal(read(tmp_path / "image_classes.tif")[0], expected)


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((2, 2), 2.002, ResolutionScale()),
        ((2, 2), 8, ResolutionScale(128, 128, 32)),
        ((10, 10), 2.5, ResolutionScale(8, 8, 32)),
        ((0.3, 0.3), 0.5, ResolutionScale(107, 107, 64)),
        ((2, 1), 2, ResolutionScale(64, 32, 32)),
    ],
)
def test_windows_lie_on_whole_pixels_and_on_the_stride_within_half_a_per_cent(
    tmp_path: Path, size: tuple[float, float], resolution: float, expected: ResolutionScale
) -> None:
    wide, tall = size
    turned = Affine.rotation(30) * Affine.scale(wide, -tall)  # sides, not coefficients, are sizes
    source = write_raster(tmp_path / "image.tif", draw((1, 700, 900)), transform=turned)
    found = scale_for(read_info(source), resolution)
    assert found == expected
    grid = found.grid(read_info(source), 256, BlendSpec(16, 16))
    assert found.model_shape(grid.rows.window, grid.cols.window)[0] % 32 == 0
    assert not any(start % found.rows for start in grid.rows.starts)


def test_a_resolution_needs_a_georeference_and_a_sensible_size(tmp_path: Path) -> None:
    bare = write_raster(tmp_path / "bare.tif", draw((2, 40, 40)), crs=None, transform=None)
    with pytest.raises(DataError, match=r"resolution=5: .*bare.tif has no georeference"):
        predict(bare, tmp_path, resolution=5)
    source = write_raster(tmp_path / "image.tif", draw((2, 40, 40)))
    with pytest.raises(DataError, match=r"resolution=90: the pixels of .*image.tif are 2 x 2 map units"):
        predict(source, tmp_path, resolution=90)


def test_a_map_at_another_resolution_goes_on_and_one_at_another_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_seg.prediction.planner._MIN_PART_ROWS", 1)
    source = write_raster(tmp_path / "image.tif", blocks(64 * 8, 120, 16))
    options: dict[str, Any] = {"overlap": 0, "resolution": 4, "probabilities": "all"}
    predict(source, tmp_path / "whole", **options)
    for change, seen in (({}, 1), ({"resolution": 2}, 16)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
            stop_after(patch, 3)
            predict(source, tmp_path / "maps", **options)
        with pytest.MonkeyPatch.context() as patch:
            windows = stop_after(patch, 99)
            predict(source, tmp_path / "maps", **{**options, **change})
            assert len(windows) == seen
        if not change:
            for name in ("image_classes.tif", "image_probabilities.tif"):
                assert (tmp_path / "maps" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_dry_run_knows_the_windows_of_the_resolution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 256, 256)))
    predict(source, tmp_path, resolution=4, dry_run=True)
    assert "9 of 128 x 128" in capsys.readouterr().out
