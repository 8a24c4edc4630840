"""The report: what differs from the default, where windows lie, which are shown; a page of its own."""

from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.run_config import default_config, diff_configs
from geo_seg.data.scenes.scene import Scene
from geo_seg.metrics.scores import mean_iou
from geo_seg.raster.reader import RasterInfo
from geo_seg.report import figures, html_page
from geo_seg.report.locations import describe_location, scene_outlines
from geo_seg.report.pictures import draw_panels, encode_panels
from geo_seg.tiling import Window
from geo_seg.training.pictures import ranked
from geo_seg.training.report import read_speed
from geo_seg.training.run_summary import window_size_note
from tests.conftest import REPOSITORY

UTM = "EPSG:32633"
LOCAL = 'LOCAL_CS["site grid",UNIT["metre",1]]'


def scene(
    name: str, crs: str | None = UTM, transform: tuple[float, ...] | None = (2, 0, 500000, 0, -2, 5000000)
) -> Scene:
    header = RasterInfo(name, 100, 60, (1,), "uint8", crs, transform, (None,), ("",), (64, 64), (0,), False)
    return Scene(name, header, header, (1,))


@pytest.fixture
def composed(hydra_restore_singletons: object) -> dict[str, object]:
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        found = OmegaConf.to_container(compose("train"), resolve=False)
    assert isinstance(found, dict)
    return found  # type: ignore[return-value]


def test_the_default_configuration_is_what_hydra_composes(composed: dict[str, object]) -> None:
    assert diff_configs(composed, default_config()) == []


def test_what_differs_is_listed_by_key() -> None:
    default = {"seed": 0, "model": {"name": "unet", "depth": 5}, "loss": {"name": "dice", "smooth": 0.0}}
    config = {"seed": 0, "model": {"name": "unet", "depth": 4}, "loss": {"name": "focal", "gamma": 2.0}}
    assert diff_configs(config, default) == [
        ("model.depth", 5, 4),
        ("loss.name", "dice", "focal"),
        ("loss.smooth", 0.0, "–"),
        ("loss.gamma", "–", 2.0),
    ]


def test_a_window_is_placed_in_its_scene_on_the_map_and_on_the_globe() -> None:
    said = describe_location(scene("a"), Window(10, 20, 20, 40))
    assert said.startswith("rows 10 to 29, columns 20 to 59; middle at 500080.0, 4999960.0 (EPSG:32633), ")
    assert said.endswith("° N, 15.00102° E")
    assert describe_location(scene("a", None), Window(0, 0, 2, 2)).endswith("middle at 500002.0, 4999998.0")
    assert describe_location(scene("a", None, None), Window(0, 0, 2, 2)) == "rows 0 to 1, columns 0 to 1"
    degrees = describe_location(scene("a", "EPSG:4326", (0.5, 0, 10, 0, -0.5, -20)), Window(0, 0, 2, 2))
    assert degrees.endswith("middle at 20.50000° S, 10.50000° E")
    assert describe_location(scene("a", LOCAL), Window(0, 0, 2, 2)).endswith(
        "4999998.0 (the scenes' own CRS)"
    )


def test_outlines_are_in_the_crs_of_the_scenes_or_in_degrees() -> None:
    found = scene_outlines({"train": [scene("a")], "val": [scene("b")]}, 64)
    assert found is not None and found[1] == ("x in m (EPSG:32633)", "y in m")
    corners = found[0]["train"][0]
    assert corners.min(0).tolist() == [500000, 4999880]
    assert corners.max(0).tolist() == [500200, 5000000]
    mixed = scene_outlines(
        {"train": [scene("a")], "val": [scene("b", "EPSG:32634")], "test": [scene("c", None, None)]},
        64,
    )
    assert mixed is not None and mixed[1] == ("longitude", "latitude")
    assert mixed[0]["train"][0].mean(0) == pytest.approx([15, 45.15], abs=0.01)
    assert mixed[0]["val"][0].mean(0) == pytest.approx([21, 45.15], abs=0.01)
    assert mixed[0]["test"] == []
    assert scene_outlines({"train": [scene("a", None, None)]}, 64) is None
    local = scene_outlines({"train": [scene("a", LOCAL)]}, 64)
    assert local is not None and local[1][0] == "x in map units (the scenes' own CRS)"
    unlike = scene_outlines({"train": [scene("a", LOCAL)], "val": [scene("b")]}, 64)
    assert unlike is not None and (len(unlike[0]["train"]), len(unlike[0]["val"])) == (0, 1)


def test_the_windows_shown_are_the_best_the_middle_and_the_worst() -> None:
    ious = np.array([0.5, 0.9, 0.1, 0.3, 0.7, 0.99, 0.01, 0.6])
    labelled = np.array([100, 100, 100, 100, 100, 3, 0, 100])  # the last but one has no label, one has few
    assert ranked(ious, labelled) == [
        ("best", 1),
        ("best", 4),
        ("median", 7),
        ("median", 0),
        ("worst", 3),
        ("worst", 2),
    ]
    assert ranked(ious[:1], labelled[:1]) == [("best", 0)]
    assert ranked(ious[:0], labelled[:0]) == []


def test_the_score_of_a_window_is_its_mean_iou() -> None:
    counts = np.array([[[30, 10, 0], [40, 20, 0], [40, 10, 10]], [[0, 0, 0]] * 3])
    assert mean_iou(counts).tolist() == [(30 / 50 + 10 / 20) / 2, 0]


def test_large_pictures_become_small_and_classes_stay_classes() -> None:
    pixels = np.zeros((900, 600, 3), np.uint8)
    pixels[:, 300:] = (10, 200, 30)
    found = dict(encode_panels([("image", pixels), ("label", pixels)]))
    label = Image.open(BytesIO(found["label"]))
    assert label.size == (213, 320)
    assert {color for _, color in label.getcolors()} == {(0, 0, 0), (10, 200, 30)}
    assert found["image"].startswith(b"\xff\xd8")


class Page(HTMLParser):
    """What a browser or a screen reader would look for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def assert_readable(text: str) -> Page:
    """Language, title, width; tables with captions and scopes; alternative texts; nothing from outside."""
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert all(image["alt"] and str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(head.get("scope") in {"row", "col"} for head in page.all("th"))
    assert not [1 for tag, _ in page.tags if tag in {"script", "link", "iframe"}]
    marks = {attributes.get("id") for _, attributes in page.tags}
    for link in page.all("a"):
        assert str(link["href"]).startswith("#") and str(link["href"])[1:] in marks
    assert "url(" not in text and "@import" not in text
    return page


def test_text_is_escaped_and_a_page_is_readable() -> None:
    table = html_page.table("A <caption>", ["name", "IoU"], [["<script>", 0.5]])
    image = html_page.image(b"\x89PNG", 'a "picture"', "<b>")
    text = html_page.render_page(
        "T & <t>", html_page.paragraph("1 < 2"), [("One", table + image), ("Empty", "")]
    )
    page = assert_readable(text)
    assert "<script>" not in text and "T &amp; &lt;t&gt;" in text
    assert page.all("img")[0]["alt"] == 'a "picture"'
    assert "Empty" not in text
    assert "&lt;b&gt;" in text
    key = html_page.legend_entry((255, 0, 16), "<roof>")
    assert html_page.text(key) == key and "#ff0010" in key and "&lt;roof&gt;" in key


def test_panels_show_where_a_prediction_is_wrong_and_nothing_where_there_is_no_label() -> None:
    facts = SimpleNamespace(ignore_index=255, band_names=["1"], class_colors=[[1, 2, 3], [9, 8, 7]])
    labels = np.array([[0, 1], [255, 1]])
    predicted = np.array([[0, 0], [1, 1]])
    found = dict(draw_panels(np.ones((1, 2, 2)), labels, predicted, np.ones((2, 2), bool), facts))  # type: ignore[arg-type]
    assert found["label"].tolist() == [[[1, 2, 3], [9, 8, 7]], [[255] * 3, [9, 8, 7]]]
    assert found["errors"].tolist() == [[[235] * 3, [214, 39, 40]], [[255] * 3, [235] * 3]]
    assert list(draw_panels(np.ones((1, 2, 2)), labels, None, np.ones((2, 2), bool), facts)) != list(found)  # type: ignore[arg-type]


def test_the_speed_of_a_run_is_told_epoch_by_epoch(tmp_path: Path) -> None:
    file = tmp_path / "system.csv"
    assert read_speed(file) == []
    file.write_text("epoch,samples_per_second\n0,12.34567\n1,\n")
    assert read_speed(file) == [
        {"epoch": "1", "samples_per_second": "12.35"},
        {"epoch": "2", "samples_per_second": "–"},
    ]


@pytest.mark.parametrize(
    ("epochs", "ticks"), [(1, [1]), (2, [1, 2]), (40, [0, 5, 10, 15, 20, 25, 30, 35, 40])]
)
def test_curves_are_marked_at_whole_epochs(
    epochs: int, ticks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []

    def shown(figure: Figure) -> bytes:
        figure.draw_without_rendering()
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        seen.append([tick for tick in axes.get_xticks() if low <= tick <= high])
        return b""

    monkeypatch.setattr(figures, "_png", shown)
    figures.training_curves([{"epoch": epoch, "val/loss": 1.0, "val/miou": 0.5} for epoch in range(epochs)])
    assert seen == [ticks, ticks]


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (4096, "the largest, a.tif, has 60 x 100 pixels: dataset.window=128 holds it"),
        (129, "dataset.window=129 is larger than every scene"),
        (
            128,
            "2 scenes are smaller than dataset.window=128 and are padded with ignored pixels, a.tif for one",
        ),
        (60, ""),
    ],
)
def test_a_window_that_is_larger_than_every_scene_is_said_with_one_that_fits(window: int, said: str) -> None:
    found = window_size_note([scene("a.tif"), scene("b.tif")], window)
    assert said in found
    assert bool(said) == bool(found)
