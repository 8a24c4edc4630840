"""Maps lie on their raster's grid, and are there when they are complete or not at all."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geo_seg import writing
from geo_seg.errors import DataError
from geo_seg.writing import Geometry, MapWriter, name_classes, prepare_folder, unfinished
from tests.conftest import write_raster


def written(path: Path, geometry: Geometry, pixels: np.ndarray, step: int) -> None:
    with MapWriter(path, geometry, count=len(pixels), dtype="uint8", nodata=255, tags={}) as target:
        for row in range(0, pixels.shape[1], step):
            target.append(pixels[:, row : row + step])


@pytest.mark.parametrize(
    "transform",
    [
        Affine(2, 0, 500000, 0, -2, 5000000),
        Affine(2, 0, 500000, 0, 2, 5000000),  # south-up
        Affine(1.9, 0.6, 500000, 0.6, -1.9, 5000000),  # rotated
    ],
)
@pytest.mark.parametrize("step", [1, 7, 300])
def test_rows_in_any_portions_give_the_same_raster_on_the_same_grid(
    tmp_path: Path, transform: Affine, step: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (2, 530, 270), np.uint8)
    source = write_raster(tmp_path / "image.tif", pixels, transform=transform)
    written(tmp_path / "map.tif", Geometry.of(source), pixels, step)
    with rasterio.open(source) as image, rasterio.open(tmp_path / "map.tif") as found:
        assert (found.crs, found.transform, found.shape) == (image.crs, image.transform, image.shape)
        assert found.nodata == 255
        assert (found.read() == pixels).all()


def test_a_raster_without_georeference_gives_a_map_without(tmp_path: Path) -> None:
    pixels = np.zeros((1, 4, 5), np.uint8)
    source = write_raster(tmp_path / "image.png", pixels, driver="PNG", crs=None, transform=None)
    written(tmp_path / "map.tif", Geometry.of(source), pixels, 4)
    with rasterio.open(tmp_path / "map.tif") as found:
        assert found.crs is None
        assert found.transform.is_identity


def test_what_a_map_does_not_take_over_is_told(tmp_path: Path) -> None:
    points = [rasterio.control.GroundControlPoint(row, col, col, row) for row in (0, 9) for col in (0, 9)]
    path = write_raster(tmp_path / "image.tif", np.zeros((10, 10), np.uint8), transform=None, gcps=points)
    assert Geometry.of(path).ignored == "ground control points"


def test_names_and_colours_of_classes_are_found_by_gdal(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "map.tif", np.zeros((3, 3), np.uint8))
    name_classes(path, ["field", "water & ice"], [(1, 2, 3), (4, 5, 6)])
    text = (tmp_path / "map.tif.aux.xml").read_text()
    assert "<Category>water &amp; ice</Category>" in text
    with rasterio.open(path) as found:
        assert found.shape == (3, 3)


def test_files_appear_together_when_the_block_ends_well(tmp_path: Path) -> None:
    with unfinished(tmp_path, ["a", "b"]) as hidden:
        (hidden / "a").write_text("1")
        (hidden / "b").write_text("2")
        assert not (tmp_path / "b").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_nothing_appears_and_nothing_is_left_when_the_block_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(KeyError), unfinished(tmp_path, ["a"]) as hidden:
        (hidden / "a").write_text("after")
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_a_truncated_raster_is_not_taken_for_a_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 300, 300), np.uint8)
    geometry = Geometry.of(write_raster(tmp_path / "image.tif", pixels))
    sync = writing.os.fsync

    def lose_the_end(descriptor: int) -> None:
        sync(descriptor)
        writing.os.truncate(descriptor, writing.os.fstat(descriptor).st_size - 5)

    monkeypatch.setattr(writing.os, "fsync", lose_the_end)
    with pytest.raises(DataError, match=r"map\.tif: cannot be written \(not all of it reached the disk"):
        written(tmp_path / "map.tif", geometry, pixels, 300)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 300, 300), np.uint8)
    geometry = Geometry.of(write_raster(tmp_path / "image.tif", pixels))
    with (
        pytest.raises(DataError, match=r"map\.tif: cannot be written"),
        unfinished(tmp_path, ["map.tif"]) as hidden,
    ):
        (hidden / "map.tif").symlink_to("/dev/full")
        written(hidden / "map.tif", geometry, pixels, 300)
    assert [p.name for p in tmp_path.iterdir()] == ["image.tif"]


def test_a_folder_that_takes_no_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="nothing can be written there"):
        prepare_folder(tmp_path / "file" / "below")
    prepare_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
