"""Maps and scores take the pixels for valid that training does; what gets no class is nodata, and said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import losses
from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.models.layers import Normalize
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, draw, facts, predict, read, threshold
from tests.masked_rasters import CASES, draw_valid, write_masked

SIZE = (70, 90)
QUICK = {
    ("uint8", "internal mask"),
    ("float32", "nodata"),
    ("float64", "NaN"),
    ("uint16", "nodata and alpha"),
}
SAMPLED = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id="-".join(case)) for case in CASES
]


def learnt(**changes: Any) -> Checkpoint:
    """Class 1 where band 1 is above 45; remembers how labels are read."""
    given = {"name": "x", "root": "x", "classes": ["low", "high"], "window": 64}
    return threshold(mean=[45.0 - LIMIT, 0.0], config={"dataset": given}, **changes)


@pytest.mark.fault("validity", "every type x every mask x every reading path has one answer")
@pytest.mark.parametrize(("dtype", "kind"), SAMPLED)
def test_maps_are_nodata_where_the_image_is_and_count_what_nothing_declares(
    tmp_path: Path, dtype: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).integers(1, 90, (2, *SIZE))
    valid = write_masked(tmp_path / "image.tif", image, draw_valid(*SIZE), dtype, kind)
    predict(tmp_path / "image.tif", tmp_path / "out", learnt(dtype=dtype))
    expected = np.where(valid, image[0] > 45, 255)
    np.testing.assert_array_equal(read(tmp_path / "out" / "image_classes.tif")[0], expected)
    note = f"{(~valid).sum()} px hold NaN, infinity or numbers beyond 1e+30, which no nodata value declares"
    assert (note in capsys.readouterr().out) == (kind == "NaN")


@pytest.mark.fault("validity", "a mask on the left half of labels: 16384 px count, right is 8192")
@pytest.mark.parametrize("place", ["the grid of the image", "another grid"])
@pytest.mark.parametrize(("dtype", "kind"), SAMPLED)
def test_what_the_mask_of_labels_hides_does_not_count(
    tmp_path: Path, dtype: str, kind: str, place: str
) -> None:
    image = np.random.default_rng(0).integers(1, 90, (2, *SIZE))
    write_raster(tmp_path / "image.tif", image.astype(np.uint8))
    rows = SIZE[0] + 9 * (place == "another grid")
    labels = np.random.default_rng(1).integers(0, 2, (rows, SIZE[1]))
    valid = draw_valid(*labels.shape)
    if kind == "NaN":
        write_raster(tmp_path / "labels.tif", np.where(valid, labels, np.nan).astype(dtype))
    else:
        valid = write_masked(tmp_path / "labels.tif", labels[None], valid, dtype, kind)
    predict(tmp_path / "image.tif", tmp_path / "out", learnt(), labels=str(tmp_path / "labels.tif"))
    shown, true, seen = image[0] > 45, labels[: SIZE[0]], valid[: SIZE[0]]
    expected = [[int((seen & (true == row) & (shown == col)).sum()) for col in (0, 1)] for row in (0, 1)]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["confusion"] == expected


@pytest.mark.fault("nodata", "logits that are NaN are a map of class 0")
@pytest.mark.parametrize("shown", [{}, {"probabilities": "all", "uncertainty": True}, {"tta": "flips"}])
def test_pixels_of_which_a_model_says_nan_are_nodata_and_counted(
    tmp_path: Path, shown: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    class Unsure(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            above = torch.where(image[:, :1] > LIMIT, 40.0, -40.0)
            odd = torch.where(image[:, 1:2] > 1900, torch.inf, 0.0) - torch.where(
                image[:, 1:2] > 1950, torch.inf, 0.0
            )
            return torch.cat([-above, above + odd], 1)

    image = draw((2, *SIZE))
    write_raster(tmp_path / "image.tif", image)
    known = facts()
    model = Checkpoint(
        Path("x"), known, losses.Task("multiclass", 2, 255), Unsure(), Normalize(known.mean, known.std)
    )
    predict(tmp_path / "image.tif", tmp_path / "out", model, overlap=0, **shown)
    lost = image[1] > 1900
    assert lost.any()
    found = read(tmp_path / "out" / "image_classes.tif")[0]
    np.testing.assert_array_equal(found, np.where(lost, 255, image[0] > LIMIT))
    assert f"{lost.sum()} px are nodata because the model predicts NaN there" in capsys.readouterr().out
    if "probabilities" in shown:
        assert (read(tmp_path / "out" / "image_probabilities.tif")[:, lost] == 255).all()


@pytest.mark.fault("nodata", "one undeclared -3.4e38 or 1e31 changes half of a map")
@pytest.mark.parametrize("value", [np.finfo(np.float32).min, 1e31, np.inf, np.nan])
def test_a_value_beyond_all_measurements_changes_no_other_pixel(tmp_path: Path, value: float) -> None:
    class Mean(nn.Module):
        """What a pixel is depends on the mean of its window, as behind a global pooling."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            above = (image[:, :1] > image[:, :1].mean((2, 3), keepdim=True)).float() * 2 - 1
            return torch.cat([-above, above], 1) * 40

    image = draw((2, 64, 64)).astype(np.float32)
    known = facts(mean=[1000.0, 1000.0], dtype="float32")
    model = Checkpoint(
        Path("x"), known, losses.Task("multiclass", 2, 255), Mean(), Normalize(known.mean, known.std)
    )
    image[0, 20, 30] = 1000  # where the model sees 0, as of nodata
    write_raster(tmp_path / "whole.tif", image)
    image[0, 20, 30] = value
    write_raster(tmp_path / "image.tif", image)
    predict([str(tmp_path / "whole.tif"), str(tmp_path / "image.tif")], tmp_path / "out", model, overlap=0)
    expected = read(tmp_path / "out" / "whole_classes.tif")[0]
    expected[20, 30] = 255
    np.testing.assert_array_equal(read(tmp_path / "out" / "image_classes.tif")[0], expected)
