"""What the report shows is told as it is: scales, stretches, units, counts, and nothing where nothing is."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from matplotlib.figure import Figure
from PIL import Image
from rasterio.crs import CRS

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.metrics.scores import ClassScore, SegmentationScores
from geo_seg.report import figures
from geo_seg.report.locations import crs_unit
from geo_seg.report.pictures import ScaleBar, encode_panels, scale_bar, true_color
from geo_seg.report.run_page import _configuration, _figure_row, _window_rows
from geo_seg.report.tables import class_score_table, count_noun


@pytest.mark.fault("report", "panels of one scene have stretches of their own and no scale")
@pytest.mark.parametrize(
    ("width", "side", "text", "length"),
    [
        (300, 10.0, "1 km", 1000),
        (299, 10.0, "500 m", 500),
        (256, 0.3, "20 m", 20),
        (64, 0.001, "2 cm", 0.02),
        (128, 30.0, "1 km", 1000),
        (768, 1113.2, "200 km", 200_000),
        (512, None, "100 px", 100),
        (2, None, "1 px", 1),
    ],
)
def test_a_scale_bar_is_the_longest_round_length_up_to_a_third(
    width: int, side: float | None, text: str, length: float
) -> None:
    bar = scale_bar(width, side)
    assert bar.text == text
    assert bar.share == pytest.approx(length / (width * (side or 1)))
    assert bar.share <= 1 / 3 or text == "1 px"


@pytest.mark.fault("report", "panels of one scene have stretches of their own and no scale")
def test_the_bar_in_a_picture_is_as_long_as_it_says() -> None:
    grey = np.full((100, 200, 3), 128, np.uint8)
    plain, drawn = (
        np.asarray(
            Image.open(BytesIO(dict(encode_panels([("image", grey)], bar))["image"])).convert("L"), int
        )
        for bar in (None, ScaleBar(0.25, "50 m"))
    )
    assert (abs(plain - 128) < 3).all()
    assert (drawn[94, :] < 60).sum() == pytest.approx(51, abs=3)
    assert (abs(drawn[:60] - 128) < 3).all()  # the rest of the image is as it was


@pytest.mark.fault("report", "panels of one scene have stretches of their own and no scale")
def test_windows_of_a_scene_share_its_stretch(small: DatasetConfig) -> None:
    data = SceneDataModule(small, 0)
    (index,) = data.index["test"]
    stretch = index.bands.percentiles((0.02, 0.98))
    with rasterio.open(data.scenes["test"][0].image.path) as source:
        pixels = source.read()
    valid = (pixels != 0).any(0)
    expected = np.percentile(pixels[:, valid], (2, 98), axis=1)
    assert stretch == pytest.approx(expected, rel=0.02)
    one, other = pixels[:, :32, 20:52], pixels[:, 40:72, 40:72]
    for part in (one, other):
        shown = true_color(part, np.ones((32, 32), bool), ["1", "2"], stretch)
        level = np.clip((part[0] - stretch[0, 0]) / (stretch[1, 0] - stretch[0, 0]), 0, 1)
        assert abs(shown[..., 0] - level * 255).max() <= 1


@pytest.mark.fault("report", "metres are called map units, one epoch epochs, counts are nowhere")
@pytest.mark.parametrize(
    ("crs", "unit"),
    [("EPSG:32633", "m"), ("EPSG:4326", "degrees"), ("EPSG:2263", "US survey foot"), ("EPSG:3857", "m")],
)
def test_units_of_map_coordinates_have_their_names(crs: str, unit: str) -> None:
    assert crs_unit(CRS.from_user_input(crs)) == unit


@pytest.mark.fault("report", "metres are called map units, one epoch epochs, counts are nowhere")
@pytest.mark.parametrize(("count", "said"), [(1, "1 epoch"), (2, "2 epochs"), (1200, "1,200 epochs")])
def test_one_is_no_plural(count: int, said: str) -> None:
    assert count_noun(count, "epoch") == said


@pytest.mark.fault("report", "metres are called map units, one epoch epochs, counts are nowhere")
def test_cells_of_the_confusion_matrix_hold_shares_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def shown(figure: Figure) -> bytes:
        texts.extend(text.get_text() for text in figure.axes[0].texts)
        return b""

    monkeypatch.setattr(figures, "_png", shown)
    figures.confusion_matrix([[750_000, 250_000], [0, 1_234]], ["a", "b"])
    assert texts == ["0.75\n750k", "0.25\n250k", "0.00\n0", "1.00\n1.23k"]


@pytest.mark.fault("report", "boundary IoU of a class with hardly a boundary is a number like any other")
def test_a_missing_boundary_iou_is_a_dash_with_its_count() -> None:
    few, none = (ClassScore("a", 0.5, 0.6, 0.7, 0.8, 9, None, pixels) for pixels in (12, 0))
    scores = SegmentationScores(miou=0.5, accuracy=0.5, pixels=18, classes=[few, none], confusion=[])
    facts = SimpleNamespace(class_colors=[[1, 2, 3], [9, 8, 7]])
    html = class_score_table(scores, facts, "x")  # type: ignore[arg-type]
    assert "<td>– (12 px)</td>" in html and html.count("<td>–</td>") == 2  # of the other class, and the mean


@pytest.mark.fault("report", "an empty section is shown")
def test_sections_without_content_are_not_shown() -> None:
    assert _figure_row([]) == "" and _window_rows("x", [], SimpleNamespace()) == ""  # type: ignore[arg-type]
    nothing = SimpleNamespace(changes=[], config={"seed": 0})
    assert "<table" not in _configuration(nothing)  # type: ignore[arg-type]
