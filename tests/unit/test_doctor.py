"""The data doctor finds all that is wrong at once, and nothing where nothing is."""

import base64
import io
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from rasterio.transform import from_origin

from geo_seg.config.augment import AugmentConfig
from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.data.scenes.leakage import Leak
from geo_seg.doctor import examine as examination
from geo_seg.doctor.contact_sheet import check_misregistration, draw_samples
from geo_seg.doctor.examine import DataReport, examine
from geo_seg.doctor.findings import add_findings, describe_weaker_warps, suggest_config, suggest_window
from geo_seg.doctor.misregistration import edge_correlation, shift_of
from geo_seg.doctor.page import build_tables, write_page
from geo_seg.doctor.run import check
from geo_seg.errors import DataError
from geo_seg.report.html_page import WIDE
from tests.conftest import REPOSITORY, Run, draw_scene, small_overrides, write_raster


def looked_at(config: DatasetConfig) -> DataReport:
    found = examine(config, 0)
    add_findings(found)
    return found


def test_the_audit_of_a_check_knows_what_augmentation_turns_in(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def audit(scenes: object, index: object, config: object, border: int) -> list[Leak]:
        seen.append(border)
        return []

    monkeypatch.setattr(examination, "find_leaks", audit)
    with suppress(SystemExit):  # what else is found doesn't matter
        check(configured(small_root, "augment.scale=[0.5,1]"), tmp_path / "run")
    assert seen == [16]  # of windows of 32 pixels


def scene(root: Path, number: int, image: np.ndarray, mask: np.ndarray, **profile: object) -> None:
    place = {"transform": from_origin(500000 + 1000 * number, 5000000, 2, 2)}
    write_raster(root / "images" / f"s{number}.tif", image, **{"nodata": 0, **place, **profile})
    write_raster(root / "masks" / f"s{number}.tif", mask, **place)


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    for number in range(6):
        scene(tmp_path, number, *draw_scene(number))
    return DatasetConfig(
        name="six",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["low", "middle", "high"],
        split=SplitConfig(by="pattern", val="images/s4.tif", test="images/s5.tif"),
        window=32,
    )


def test_a_sound_data_set_has_nothing_to_mend(config: DatasetConfig) -> None:
    found = looked_at(config)
    assert (found.problems, found.warnings) == ([], [])
    splits, classes, bands = build_tables(found)
    assert [row[:2] for row in splits.rows] == [["train", "4"], ["val", "1"], ["test", "1"]]
    assert splits.rows[1][2:6] == ["7,680", "8.8%", "91.2%", "96x80"]
    counts = np.bincount(draw_scene(4)[1][:, 7:].ravel(), minlength=3) / (96 * 73)
    assert [row[2] for row in classes.rows] == [f"{share:.2%}" for share in counts]
    assert len(bands.rows) == 2


def test_all_that_is_wrong_is_told_at_once(config: DatasetConfig) -> None:
    root = Path(config.root)
    (root / "masks" / "s0.tif").unlink()  # an image without a label
    mask = draw_scene(1)[1]
    mask[0, 10:15] = 77  # values of no class
    scene(root, 1, draw_scene(1)[0], mask)
    write_raster(root / "masks" / "s2.tif", mask, transform=from_origin(0, 0, 2, 2))  # another grid
    (root / "images" / "s3.tif").write_bytes(b"nothing")  # not a raster
    place = {"transform": from_origin(500000 + 1000, 5000000, 2, 2)}  # the ground of s1
    write_raster(root / "images" / "s5.tif", draw_scene(5)[0], nodata=0, **place)
    write_raster(root / "masks" / "s5.tif", draw_scene(5)[1], **place)
    text = "\n".join(looked_at(config).problems)
    for words in (
        "s0.tif: no mask for this image (1 of 6",
        "masks/s1.tif: mask values in no class: 77 (5 px)",
        "masks/s2.tif: the mask has",
        "images/s3.tif: cannot be opened as a raster",
        "images/s5.tif (test) lies where windows are trained on, in images/s1.tif",
    ):
        assert words in text


def test_a_split_that_cannot_be_made_still_gets_its_scenes_looked_at(config: DatasetConfig) -> None:
    found = looked_at(replace(config, split=SplitConfig(by="pattern", val="images/x*.tif")))
    assert any("no image matches ['images/x*.tif']" in line for line in found.problems)
    assert list(found.scenes) == ["all"]


def test_nothing_to_look_at_is_an_error(config: DatasetConfig) -> None:
    for file in (Path(config.root) / "masks").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no mask for this image"):
        examine(config, 0)


def test_where_no_scene_can_be_looked_at_the_first_reason_stands_for_all(config: DatasetConfig) -> None:
    for number in range(6):
        image, mask = draw_scene(number)
        scene(Path(config.root), number, image, np.stack([mask, mask]))
    with pytest.raises(DataError, match=r"s0\.tif: the mask has 2 bands.*\(none of 6 scenes can be read\)"):
        examine(config, 0)


def test_most_scenes_without_a_class_are_a_problem(config: DatasetConfig) -> None:
    for number in range(4):
        scene(Path(config.root), number, draw_scene(number)[0], np.full((96, 80), 255, np.uint8))
    text = "\n".join(looked_at(config).problems)
    assert "images/s0.tif and 3 more: 4 of 6 scenes have no pixel of any class" in text
    assert "no pixel of train has a class" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image // 20, "uint16 with no value above 255"),
        (lambda image: (image > 1000).astype(np.uint8), "as of masks"),
        (
            lambda image: image.astype(np.float32) - 20000 * (image == image[:, 9:10, 9:10]),
            "far from all other values",
        ),
    ],
)
def test_values_that_do_not_fit_their_type_are_a_problem(
    config: DatasetConfig, change: object, words: str
) -> None:
    for number in range(6):
        image, mask = draw_scene(number)
        scene(Path(config.root), number, change(image), mask)  # type: ignore[operator]
    text = "\n".join(looked_at(config).problems)
    assert words in text


def test_one_scene_of_another_scale_and_an_undeclared_nodata_are_problems(config: DatasetConfig) -> None:
    image, mask = draw_scene(2)
    scene(Path(config.root), 2, (image // 30).astype(np.uint16), mask)
    found = looked_at(config)
    assert ["images/s2.tif: bright values are more than 20 times" in line for line in found.problems] == [
        True
    ]
    for number in range(6):
        image, mask = draw_scene(number)
        scene(
            Path(config.root), number, np.where(image == 0, -9999, image.astype(np.int16)), mask, nodata=None
        )
    [line] = looked_at(config).problems
    assert "dataset.nodata=-9999" in line
    assert looked_at(replace(config, nodata=-9999)).problems == []


def test_what_may_be_meant_so_is_a_warning(config: DatasetConfig) -> None:
    root = Path(config.root)
    image, mask = draw_scene(4)
    mask[mask == 2] = 1
    scene(root, 4, image, mask)  # no class high in val
    image, mask = draw_scene(0)
    image[:, :70] = 0
    scene(root, 0, image, mask)  # mostly nodata
    image, mask = draw_scene(1)
    scene(root, 1, image, mask, nodata=None)  # its black border counts
    text = "\n".join(looked_at(replace(config, window=128)).warnings)
    for words in (
        "no pixel of val has class high",
        "images/s0.tif: more than half of the image is nodata",
        "images/s1.tif: all bands are 0 in 5 % of the pixels",
        "smaller than dataset.window=128",
    ):
        assert words in text


def test_blocks_that_leave_nothing_to_train_on_are_no_fault_of_the_labels(config: DatasetConfig) -> None:
    config.split = SplitConfig(by="blocks", val=0.2, test=0.2, block=32, buffer=500, balance=False)
    found = looked_at(config)
    line = "no pixel of train has a class: all are nodata or ignored, or too near to blocks of val and test"
    assert f"{line}; see dataset.split" in found.problems
    assert not any("compare the values of the masks" in problem for problem in found.problems)
    assert [row[4] for row in build_tables(found)[1].rows] == ["6 of 6", "6 of 6", "6 of 6"]


def test_a_leak_that_is_allowed_is_a_warning(config: DatasetConfig) -> None:
    image, mask = draw_scene(9)
    for kind, pixels in (("images", image), ("masks", mask)):
        write_raster(
            Path(config.root) / kind / "s4.tif", pixels, transform=from_origin(500000, 5000000, 2, 2)
        )
    assert any("the split leaks in 1 of 2 scenes" in line for line in looked_at(config).problems)
    found = looked_at(replace(config, allow_leakage=True))
    assert any("the split leaks" in line for line in found.warnings)
    assert not any("leaks" in line for line in found.problems)


def blobs(seed: int, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Buildings on a noisy ground."""
    draw = np.random.default_rng(seed)
    mask = np.zeros((size, size), np.uint8)
    for row, col, height, width in draw.integers(8, 240, (25, 4)) // (1, 1, 8, 8):
        mask[row : row + height + 4, col : col + width + 4] = 1
    return (300 + 900.0 * mask + draw.normal(0, 90, (3, size, size))).astype(np.uint16), mask


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (3, -2), (-7, 5), (0, 12)])
def test_a_shift_of_the_labels_is_found_in_pixels(shift: tuple[int, int]) -> None:
    image, mask = blobs(0)
    moved = np.roll(mask, shift, (0, 1))
    counted = np.ones(mask.shape, bool)
    counted[:, :20] = False
    expected = shift if max(map(abs, shift)) > 1 else None
    assert shift_of(edge_correlation(image, moved, counted)) == expected


def test_labels_without_any_edge_say_nothing() -> None:
    image, mask = blobs(1)
    assert shift_of(edge_correlation(image, np.zeros_like(mask), np.ones(mask.shape, bool))) is None
    noise = np.random.default_rng(0).integers(0, 2, mask.shape)
    assert shift_of(edge_correlation(image, noise, np.ones(mask.shape, bool))) is None


def test_shifted_labels_of_all_scenes_and_of_one_are_told_apart(config: DatasetConfig) -> None:
    for number in range(6):
        image, mask = blobs(number)
        scene(Path(config.root), number, image, np.roll(mask, (4, 0), (0, 1)) if number == 3 else mask)
    found = examine(config, 0)
    check_misregistration(found, draw_samples(found))
    assert found.warnings == ["images/s3.tif: its labels lie 4 px below of the edges in the image"]
    for number in range(6):
        image, mask = blobs(number)
        scene(Path(config.root), number, image, np.roll(mask, (-3, 2), (0, 1)))
    found = examine(config, 0)
    check_misregistration(found, draw_samples(found))
    assert found.warnings == [
        "labels lie 3 px above and 2 px right of the edges in the images, over all scenes examined"
    ]


def test_window_and_weights_are_suggested_from_what_the_scenes_hold(config: DatasetConfig) -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[::200, ::200] = 1
    mask[5, :3] = 2
    for number in range(6):
        scene(Path(config.root), number, np.full((2, 600, 600), 300 + number, np.uint16), mask)
    found = examine(replace(config, unlisted="ignore"), 0)
    assert suggest_window(found) == 512
    weights = suggest_config(found)[1]
    n = [600 * 600 - 9 - 3, 9, 3]
    assert "inverse frequency are low 0.333, middle 1.33e+04, high 4e+04" in weights
    assert f"has {n[0] / n[2]:.0f} times the pixels of the rarest" in weights


@pytest.fixture
def clean_hydra(hydra_restore_singletons: object) -> None:
    """Leaves no state of Hydra's behind."""


def configured(root: Path, *overrides: str) -> TrainConfig:
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        return parse_train_config(compose("train", ["mode=check", *small_overrides(root), *overrides]))


def test_a_check_leaves_a_page_and_a_sheet_and_says_where(
    clean_hydra: None, small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(configured(small_root), tmp_path / "run")
    said = capsys.readouterr().out
    assert "nothing: this data set can be trained on" in said
    assert str(tmp_path / "run" / "check.html") in said
    page = (tmp_path / "run" / "check.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "run" / "contact_sheet.png").stat().st_size > 5000


def test_a_check_ends_with_1_where_there_is_something_to_mend(
    clean_hydra: None, small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        check(configured(small_root, "dataset.classes=[low,middle]"), tmp_path / "other")
    assert end.value.code == 1
    assert "mask values in no class: 2" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
def test_the_command_line_checks_and_exits_with_1_where_there_is_something_to_mend(
    run: Run, small_root: Path, tmp_path: Path
) -> None:
    whole = run("train.py", "mode=check", *small_overrides(small_root), "hydra.run.dir=a")
    assert (whole.returncode, whole.stderr) == (0, "")
    broken = run(
        "train.py", "mode=check", *small_overrides(small_root), "dataset.classes=[a,b]", "hydra.run.dir=b"
    )
    assert (broken.returncode, broken.stderr) == (1, "")
    assert "To mend:" in broken.stdout


TRIED = pytest.mark.fault("doctor", "advice that makes a block split worse, and is given again")


def mosaic(root: Path, **choices: object) -> DatasetConfig:
    """One scene whose four classes lie side by side in fields of 80 px, cut into blocks."""
    rows, cols = np.indices((512, 512)) // 80
    mask = ((rows + 2 * cols) % 4).astype(np.uint8)
    scene(root, 0, np.stack([mask, mask]) + np.uint16(300), mask)
    given = {"window": 32, "classes": ["a", "b", "c", "d"], **choices}
    return DatasetConfig(name="one", root=str(root), images="images/*.tif", masks="masks/*.tif", **given)  # type: ignore[arg-type]


@TRIED
@pytest.mark.parametrize("buffer", [0, 30, 60])
@pytest.mark.parametrize("window", [32, 64, 128])
def test_a_window_that_is_advised_shows_more_and_takes_no_labels_from_training(
    tmp_path: Path, window: int, buffer: int
) -> None:
    split = SplitConfig(by="blocks", val=0.1, test=0.1, block=128, buffer=buffer)
    found = examine(mosaic(tmp_path, split=split, window=window), 1)
    advised = [line for line in suggest_config(found) if line.startswith("dataset.window")]
    tried = suggest_window(found)
    assert tried is not None
    after = examine(replace(found.config, window=tried), 1)
    worse = bool((after.counts("train") < 0.95 * found.counts("train")).any())
    assert bool(advised) == (tried > window and not worse)
    if advised:
        assert not any(line.startswith("dataset.window") for line in suggest_config(after))  # not again


@TRIED
def test_in_a_block_split_without_room_no_larger_window_is_advised(tmp_path: Path) -> None:
    crowded = SplitConfig(by="blocks", val=0.2, test=0.2, block=128, buffer=40, balance=False)
    for window, seen in ((32, 128), (128, 512)):
        config = mosaic(tmp_path, split=crowded, window=window)
        found = examine(config, 1)
        assert suggest_window(found) == seen
        after = examine(replace(config, window=seen), 1)
        assert (after.counts("train") < 0.9 * found.counts("train")).all()  # what the advice would have cost
        assert suggest_config(found) == []


@TRIED
def test_what_is_chosen_already_or_refused_for_the_data_is_not_advised(config: DatasetConfig) -> None:
    mask = np.zeros((96, 80), np.uint8)
    mask[:8, 10:20] = 1
    for number in range(6):
        scene(Path(config.root), number, draw_scene(number)[0], mask)
    config = replace(config, classes=["low", "high"], window=128)
    both = "loss=weighted_cross_entropy or dataset.sampler=balanced (one of the two): "
    assert suggest_config(examine(config, 0))[-1].startswith(both)
    assert suggest_config(examine(config, 0), "weighted_cross_entropy") == []
    assert suggest_config(examine(replace(config, sampler="balanced"), 0)) == []
    binary = replace(config, mode="binary")
    assert suggest_config(examine(binary, 0))[-1].startswith(both)


def test_scenes_that_end_within_reach_of_a_warp_are_told(config: DatasetConfig) -> None:
    for number in range(6):
        scene(Path(config.root), number, *draw_scene(number))
    found = examine(replace(config, window=64), 0)
    [line] = describe_weaker_warps(found, AugmentConfig(name="x", scale=[0.5, 1]))
    assert "smaller than the 128 px that a window of 64 px may turn in" in line
    assert "keeps 80% of what it could hold" in line
    assert list(describe_weaker_warps(found, AugmentConfig(name="x", d4=True))) == []


@pytest.mark.fault("first_hour", "pages at 380 px: text cut, figures unreadable, columns hidden")
def test_the_pictures_of_a_check_are_a_pair_for_each_sample_not_one_wide_sheet(
    config: DatasetConfig, tmp_path: Path
) -> None:
    found = examine(config, 0)
    samples = draw_samples(found)
    write_page(found, tmp_path / "check.html", samples)
    page = (tmp_path / "check.html").read_text()
    pictures = re.findall(r'<figure class="pane"><img alt="(.*?)" src="data:image/\w+;base64,(.*?)">', page)
    assert [alt for alt, _ in pictures] == [
        f"{kind} of {sample.split}: {sample.scene.name}" for sample in samples for kind in ("image", "label")
    ]
    for _, data in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (80, 96)
    assert WIDE in page
