"""A dry run says what all maps would take, in one table, for a tenth of that at most."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geo_seg.prediction import measure, planner
from geo_seg.prediction.predictor import Predictor
from tests.conftest import write_raster
from tests.end_to_end.test_inference import draw, predict

tenth = pytest.mark.fault("dry_run", "a dry run took longer than the run for small rasters")
one_table = pytest.mark.fault("dry_run", "six lines for each raster, and no total")


def rasters(folder: Path, *sides: int) -> Path:
    for number, side in enumerate(sides):
        write_raster(folder / f"r{number}.tif", draw((2, side, side), number))
    return folder


def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels of each window that a model sees from now on."""
    found: list[int] = []
    run = Predictor.logits

    def counted(self: Predictor, image: Any, *rest: Any) -> Any:
        found.append(image[:, 0].numel())
        return run(self, image, *rest)

    monkeypatch.setattr(Predictor, "logits", counted)
    return found


@tenth
@pytest.mark.parametrize(
    ("sides", "options"),
    [
        ((64,), {}),
        ((200,), {}),
        ((700,), {}),
        ((150,) * 9, {}),
        ((150,) * 9, {"polygons": True, "probabilities": "all"}),
        ((300, 40, 500), {"tta": "flips"}),
        ((500, 500), {"precision": "auto"}),
        ((800,), {"margin": "auto", "window": 256}),
        ((600,), {"resolution": 4}),
        ((600,), {"window": "auto"}),
    ],
)
def test_models_see_a_tenth_of_the_work_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: tuple[int, ...], options: dict[str, Any]
) -> None:
    monkeypatch.setattr(measure, "supports_bf16", lambda _: True)
    monkeypatch.setattr(planner, "measure_margin", lambda *_: 32)
    folder = rasters(tmp_path / "in", *sides)
    found = seen(monkeypatch)
    predict(folder, tmp_path / "maps", dry_run=True, **options)
    cost = sum(found)
    assert not (tmp_path / "maps").exists()
    found.clear()
    plain = {key: value for key, value in options.items() if key != "precision"}
    predict(folder, tmp_path / "maps", **plain)
    assert cost <= sum(found) / 10
    assert (cost > 0) == (sides != (64,))


@tenth
def test_precisions_are_compared_where_that_is_a_small_part_of_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planner, "measure_precision", lambda *_: "bf16")
    for side, precision in ((500, "fp32"), (1500, "bf16")):
        monkeypatch.setattr("geo_seg.inference.dry_run._COMPARED_PIXELS", 3 * 64**2)
        predict(rasters(tmp_path / str(side), side), tmp_path / "maps", dry_run=True, precision="auto")
        assert f" s in {precision}, if all windows hold data" in capsys.readouterr().out


@one_table
@pytest.mark.parametrize("count", [1, 2, 25])
def test_one_table_lists_the_rasters_and_one_line_is_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    predict(rasters(tmp_path / "in", *(130,) * count), tmp_path / "maps", dry_run=True)
    said = capsys.readouterr().out
    # windows of 64 begin at multiples of 32 and share 16 pixels at least: 4 for 130 pixels
    assert said.count(" 16 of 64 x 64 ") == min(count, 20)
    assert len(re.findall(r"time: ", said)) == 1
    assert len(re.findall(r"memory: at most", said)) == 1
    assert f"{count} map" in said
    assert bool(re.search(rf"│ all +│ +{count * 0.0169:.2f} │ +{16 * count} │", said)) == (count > 1)
    assert bool(re.search(r"│ and 5 more +│ +0.08 │ +80 │", said)) == (count > 20)


def test_a_dry_run_says_what_it_takes_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "_MIN_PART_ROWS", 1)
    image = write_raster(tmp_path / "image.tif", draw((2, 384, 100)))
    assert predict(image, tmp_path / "maps", dry_run=True) == []
    said = capsys.readouterr().out
    assert re.search(r"image.tif +│ +0.04 │ +33 of 64 x 64 │ +3.52 │ +11 │", said)
    assert "windows: margin 0, overlap 16, blend hann" in said
    assert all(word in said for word in ("memory: at most", "time: about", "size: 0.0 MB"))
    assert "polygons" not in said
    predict(image, tmp_path / "maps", dry_run=True, polygons=True)
    found = re.search(r"polygons: about (\d+) in another \d+ s, [\d.]+ MB", capsys.readouterr().out)
    assert found is not None
    assert int(found[1]) > 0
    write_raster(image, draw((2, 600, 600)))  # at half the resolution, less is left to be timed
    predict(image, tmp_path / "maps", dry_run=True, polygons=True, resolution=4)
    assert "polygons: not estimated" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]


def test_rasters_without_a_valid_pixel_have_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raster(tmp_path / "empty.tif", np.zeros((2, 300, 300), np.uint16), nodata=0)
    predict(tmp_path / "empty.tif", tmp_path / "maps", dry_run=True)
    assert "time: unknown" in capsys.readouterr().out
