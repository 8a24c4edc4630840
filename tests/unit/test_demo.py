"""The embedded data set: georeferenced scenes with every class, the same every time, repaired when broken."""

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geo_seg.data.demo import draw_demo
from geo_seg.errors import DataError

SCENES = ("train_1", "train_2", "train_3", "train_4", "val_1", "test_1")
CLOUDY = "train_2"
FILES = sorted(f"{folder}/{name}.tif" for folder in ("images", "masks") for name in SCENES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set, drawn once; tests must not change it."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    draw_demo(folder)
    return folder


def contents(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def read(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with (
        rasterio.open(root / "images" / f"{name}.tif") as image,
        rasterio.open(root / "masks" / f"{name}.tif") as mask,
    ):
        return image.read(), mask.read(1)


def copy(root: Path, to: Path) -> Path:
    for file in FILES:
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        (to / file).write_bytes((root / file).read_bytes())
    return to


def test_there_are_six_scenes_and_nothing_else(root: Path) -> None:
    assert sorted(contents(root)) == FILES


@pytest.mark.parametrize("name", SCENES)
def test_images_are_four_named_bands_and_masks_lie_on_their_grid(root: Path, name: str) -> None:
    with (
        rasterio.open(root / "images" / f"{name}.tif") as image,
        rasterio.open(root / "masks" / f"{name}.tif") as mask,
    ):
        assert image.descriptions == ("blue", "green", "red", "nir")
        assert set(image.dtypes) == {"uint16"}
        assert image.nodatavals == (0,) * 4
        assert mask.dtypes == ("uint8",)
        assert mask.nodatavals == (255,)
        assert image.crs.to_epsg() == mask.crs.to_epsg() == 32632
        assert image.transform == mask.transform
        assert image.shape == mask.shape
        assert set(image.block_shapes) == {(256, 256)}
        assert image.compression == rasterio.enums.Compression.deflate


def test_some_sizes_are_no_multiple_of_32_and_no_scene_is_square(root: Path) -> None:
    shapes = [read(root, name)[1].shape for name in SCENES]
    assert any(side % 32 for shape in shapes for side in shape)
    assert all(height != width for height, width in shapes)


def test_scenes_do_not_overlap(root: Path) -> None:
    bounds = []
    for name in SCENES:
        with rasterio.open(root / "images" / f"{name}.tif") as image:
            bounds.append(image.bounds)
    for number, a in enumerate(bounds):
        for b in bounds[number + 1 :]:
            assert a.right <= b.left or b.right <= a.left or a.top <= b.bottom or b.top <= a.bottom


@pytest.mark.parametrize("name", SCENES)
def test_the_swath_leaves_nodata_at_the_edges_only(root: Path, name: str) -> None:
    image, _ = read(root, name)
    empty = image == 0
    assert np.array_equal(empty.any(axis=0), empty.all(axis=0))
    assert 0.03 < empty[0].mean() < 0.15
    assert not empty[0][:, empty.shape[2] // 4 : -empty.shape[2] // 4].any()
    # tilted: the top row ends elsewhere than the bottom row
    assert abs(int(empty[0][0].argmin()) - int(empty[0][-1].argmin())) > 20


@pytest.mark.parametrize("name", SCENES)
def test_pixels_without_label_are_nodata_or_under_the_cloud(root: Path, name: str) -> None:
    image, mask = read(root, name)
    outside, unlabelled = (image == 0).all(axis=0), mask == 255
    assert not (outside & ~unlabelled).any()
    hidden = unlabelled & ~outside
    if name != CLOUDY:
        assert not hidden.any()
        return
    assert 0.005 < hidden.mean() < 0.08
    white = image[0] > 3500  # nothing on the ground is as bright in blue
    assert white.any()
    assert not (white & ~hidden).any()


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_has_all_classes_in_believable_shares(root: Path, name: str) -> None:
    _, mask = read(root, name)
    counts = np.bincount(mask.ravel(), minlength=256)
    assert counts[5:255].sum() == 0
    field, forest, water, road, building = counts[:5] / counts[:5].sum()
    assert 0.5 < field < 0.75
    assert 0.1 < forest < 0.35
    assert 0.02 < water < 0.12
    assert 0.03 < road < 0.12
    assert 0.01 < building < 0.06


def test_no_threshold_of_one_band_tells_a_class_from_the_rest(root: Path) -> None:
    for name in SCENES:
        image, mask = read(root, name)
        for band in image:
            edges = np.linspace(0, 6000, 301)
            below = np.stack([np.cumsum(np.histogram(band[mask == c], edges)[0]) for c in range(5)])
            for found in (below, below[:, -1:] - below):  # the pixels of each class on either side
                iou = found / (below[:, -1:] + found.sum(axis=0) - found)
                assert iou[1:].max() < 0.85


def test_reflectances_are_those_of_their_classes(root: Path) -> None:
    image, mask = read(root, "train_1")
    blue, green, red, nir = ([float(np.median(band[mask == label])) for label in range(5)] for band in image)
    field, forest, water, road, building = range(5)
    assert nir[water] < green[water] < nir[forest]
    assert green[forest] < green[field] < green[road]
    assert red[building] > red[forest]
    assert max(nir) < 6000
    assert blue[forest] < blue[road]


def test_files_that_are_whole_stay_untouched(root: Path, tmp_path: Path) -> None:
    copy(root, tmp_path)
    before = {file: (tmp_path / file).stat() for file in FILES}
    draw_demo(tmp_path)
    after = {file: (tmp_path / file).stat() for file in FILES}
    assert {f: (s.st_ino, s.st_mtime_ns) for f, s in before.items()} == {
        f: (s.st_ino, s.st_mtime_ns) for f, s in after.items()
    }


def test_deleted_cut_and_spoilt_files_are_drawn_again(root: Path, tmp_path: Path) -> None:
    copy(root, tmp_path)
    (tmp_path / "images" / "val_1.tif").unlink()
    cut = tmp_path / "masks" / "train_1.tif"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "images" / "train_1.tif").write_bytes(b"no raster")
    kept = (tmp_path / "masks" / "val_1.tif").stat().st_mtime_ns
    draw_demo(tmp_path)
    assert contents(tmp_path) == contents(root)
    assert (tmp_path / "masks" / "val_1.tif").stat().st_mtime_ns == kept


def test_processes_that_draw_at_once_leave_the_same_whole_files(root: Path, tmp_path: Path) -> None:
    copy(root, tmp_path)
    for name in ("train_3", "test_1"):
        (tmp_path / "images" / f"{name}.tif").unlink()
        (tmp_path / "masks" / f"{name}.tif").unlink()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=draw_demo, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert contents(tmp_path) == contents(root)


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"dataset\.root=.*can't be written there") as caught:
        draw_demo(tmp_path / "file" / "demo")
    assert "\n" not in str(caught.value)


def test_it_is_not_drawn_into_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.tif").touch()
    with pytest.raises(DataError, match=r"beside other files \(images/mine.tif\); `geo_seg begin .*` writes"):
        draw_demo(tmp_path)
    assert not (tmp_path / "masks").exists()
