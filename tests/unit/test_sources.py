"""Globs per band, manifests, STAC items and remote files give the same scenes as one plain raster."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig, LabelConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scenes.discovery import find_scenes, open_scenes
from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import ConfigError, DataError
from geo_seg.raster.paths import gdal_path
from geo_seg.raster.reader import RasterReader
from geo_seg.tiling import Window
from tests.conftest import draw_scene, read_window, write_raster
from tests.unit.test_polygon_labels import box, write_polygons

WHOLE = Window(0, 0, 96, 80)


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    """Three images, each as one file and as one file per band, and their masks."""
    for seed, name in enumerate("abc"):
        image, mask = draw_scene(seed)
        write_raster(tmp_path / "images" / f"{name}.tif", image, nodata=0)
        for band, pixels in zip("RG", image, strict=True):
            write_raster(tmp_path / "bands" / f"{name}_{band}.tif", pixels, nodata=0)
        write_raster(tmp_path / "masks" / f"{name}.tif", mask)
    return DatasetConfig(
        name="sources",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["x", "y", "z"],
        split=SplitConfig(by="pattern", val="*/b*.tif"),
        cache_dir=str(tmp_path / "cache"),
    )


def with_manifest(
    config: DatasetConfig, text: str | bytes, name: str = "m.csv", **options: object
) -> DatasetConfig:
    content = text.encode() if isinstance(text, str) else text
    (Path(config.root) / name).write_bytes(content)
    split = options.pop("split", SplitConfig(by="manifest"))
    return replace(config, images=None, masks=None, manifest=name, split=split, **options)  # type: ignore[arg-type]


def pixels(config: DatasetConfig, scene: Scene) -> tuple[np.ndarray, ...]:
    return read_window(config, scene, WHOLE)


def assert_same(config: DatasetConfig, scene: Scene, seed: int) -> None:
    image, mask = draw_scene(seed)
    found, labels, valid = pixels(config, scene)
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(valid, image.any(axis=0))
    np.testing.assert_array_equal(labels, np.where(valid, mask, 255))


def test_bands_in_several_files_are_one_image(config: DatasetConfig) -> None:
    config.images = ["bands/*_R.tif", "bands/*_G.tif"]
    found = find_scenes(config, 0)
    assert [scene.name for scene in found["train"]] == ["bands/a_R.tif", "bands/c_R.tif"]
    assert_same(config, found["train"][1], 2)
    config.bands = [2]
    assert (pixels(config, find_scenes(config, 0)["train"][1])[0] == draw_scene(2)[0][1:]).all()
    (Path(config.root) / "bands" / "b_G.tif").unlink()
    with pytest.raises(DataError, match=r"b_R\.tif: no file bands/\*_G\.tif for this image \(1 of 3"):
        find_scenes(config, 0)


def test_files_of_an_image_that_do_not_line_up_are_refused(config: DatasetConfig) -> None:
    config.images = ["bands/*_R.tif", "bands/*_G.tif"]
    moved = from_origin(500002, 5000000, 2, 2)
    write_raster(Path(config.root) / "bands" / "b_G.tif", draw_scene(1)[0][1], transform=moved)
    with pytest.raises(DataError, match=r"b_G\.tif has 96 rows.*from \(500002.*must line up"):
        find_scenes(config, 0)


@pytest.mark.fault("radiometry", "bands of uint8 and of float32 in one image end in a traceback")
@pytest.mark.parametrize("kind", ["images", "item", "vrt"])
def test_files_of_an_image_of_different_types_are_refused(config: DatasetConfig, kind: str) -> None:
    root = Path(config.root)
    path = root / "bands" / "a_R.tif"
    write_raster(path, draw_scene(0)[0][0].astype(np.float32), nodata=0)
    message = "a_G.tif holds uint16, .*a_R.tif holds float32; the files of an image must hold one type"
    if kind == "images":
        config.images = ["bands/*_G.tif", "bands/*_R.tif"]
    elif kind == "item":
        config = stac(config)
        config.bands = ["green", "red"]
    else:
        band = '<VRTRasterBand dataType="{}" band="{}"><SimpleSource><SourceFilename>{}</SourceFilename>'
        bands = [
            band.format(*row) for row in (("UInt16", 1, root / "bands" / "a_G.tif"), ("Float32", 2, path))
        ]
        ended = "</SimpleSource></VRTRasterBand>"
        vrt = (
            f'<VRTDataset rasterXSize="80" rasterYSize="96">{"".join(b + ended for b in bands)}</VRTDataset>'
        )
        (root / "vrts").mkdir()
        (root / "vrts" / "a.vrt").write_text(vrt)
        config.images, config.unlabelled = "vrts/*.vrt", "skip"
        message = (
            r"a\.vrt: band 1 holds uint16, band 2 holds float32; the bands of an image must hold one type"
        )
    with pytest.raises(DataError, match=message):
        find_scenes(config, 0)
    errors: list[Exception] = []
    open_scenes(config, errors.append)
    assert [bool(re.search(message, str(error))) for error in errors] == [True]


@pytest.mark.fault("validity", "band files that each have a mask")
def test_a_pixel_of_band_files_is_valid_where_the_masks_of_all_of_them_say_so(config: DatasetConfig) -> None:
    config.images = ["bands/*_R.tif", "bands/*_G.tif"]
    for path in (Path(config.root) / "bands").glob("*.tif"):
        with rasterio.open(path, "r+") as file:
            file.nodata = None
    path = Path(config.root) / "bands" / "a_R.tif"
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.repeat(np.arange(96) < 50, 80).reshape(96, 80))
    valid = pixels(config, find_scenes(config, 0)["train"][0])[2]
    assert valid[:50].all()
    assert not valid[50:].any()
    with rasterio.open(path.with_name("a_G.tif"), "r+") as file:
        file.write_mask(np.tile(np.arange(80) < 70, (96, 1)))
    valid = pixels(config, find_scenes(config, 0)["train"][0])[2]
    np.testing.assert_array_equal(valid, np.outer(np.arange(96) < 50, np.arange(80) < 70))


def test_a_vrt_is_an_image(config: DatasetConfig) -> None:
    path = Path(config.root)
    config.images = ["bands/*_R.tif", "bands/*_G.tif"]
    for name, scene in zip("ac", find_scenes(config, 0)["train"], strict=True):
        (path / "vrt").mkdir(exist_ok=True)
        (path / "vrt" / f"{name}.vrt").write_text(Path(scene.image.path).read_text())
    config.images, config.split = "vrt/*.vrt", SplitConfig(by="pattern", val="vrt/c.vrt")
    assert_same(config, find_scenes(config, 0)["train"][0], 0)


def test_a_csv_manifest_names_files_and_splits(config: DatasetConfig) -> None:
    rows = [
        "image,label,split,aoi",
        "images/a.tif,masks/a.tif,trn,",
        '"bands/b_R.tif; bands/b_G.tif",masks/b.tif,val,',
        "",
        "images/c.tif,masks/c.tif,tst,area.gpkg",
    ]
    write_polygons(Path(config.root) / "area.gpkg", [box(0, 0, 80, 40)], None)
    config = with_manifest(config, "\n".join(rows))
    found = find_scenes(config, 0)
    assert {split: [scene.name for scene in scenes] for split, scenes in found.items()} == {
        "train": ["images/a.tif"],
        "val": ["bands/b_R.tif"],
        "test": ["images/c.tif"],
    }
    assert_same(config, found["val"][0], 1)
    labels = pixels(config, found["test"][0])[1]
    assert (labels[40:] == 255).all()
    np.testing.assert_array_equal(labels[:40, 7:], draw_scene(2)[1][:40, 7:])


def test_rows_without_a_header_are_image_label_split(config: DatasetConfig) -> None:
    config = with_manifest(config, "images/a.tif,masks/a.tif,trn\nimages/b.tif,masks/b.tif,val\n")
    found = find_scenes(config, 0)
    assert [scene.name for scene in found["train"] + found["val"]] == ["images/a.tif", "images/b.tif"]
    config = with_manifest(config, "images/a.tif,masks/a.tif\nimages/b.tif,masks/b.tif\n")
    config.split = SplitConfig(val=0.5)
    assert len(find_scenes(config, 0)["train"]) == 1


def test_a_geojson_manifest_has_the_same_properties(config: DatasetConfig) -> None:
    rows = [("a", "train"), ("b", "val")]
    features = [
        {
            "type": "Feature",
            "geometry": None,
            "properties": {"image": f"images/{n}.tif", "label": f"masks/{n}.tif", "split": s, "aoi": None},
        }
        for n, s in rows
    ]
    config = with_manifest(
        config, json.dumps({"type": "FeatureCollection", "features": features}), "m.geojson"
    )
    assert_same(config, find_scenes(config, 0)["val"][0], 1)


def test_one_image_may_train_in_one_area_and_validate_in_another(config: DatasetConfig) -> None:
    root = Path(config.root)
    write_polygons(root / "west.gpkg", [box(0, 0, 40, 96)], None)
    write_polygons(root / "east.gpkg", [box(40, 0, 80, 96)], None)
    halves = (("train", "west"), ("val", "east"))
    lines = [f"images/a.tif,masks/a.tif,{split},{area}.gpkg" for split, area in halves]
    rows = "\n".join(["image,label,split,aoi", *lines, ""])
    config = with_manifest(config, rows)
    found = find_scenes(config, 0)
    assert [scene.name for scene in found["train"] + found["val"]] == ["images/a.tif", "images/a.tif#2"]
    west, east = (pixels(config, found[split][0])[1] != 255 for split in ("train", "val"))
    assert west[:, 7:40].all()
    assert east[:, 40:].all()
    assert not (west & east).any()
    with pytest.raises(DataError, match=r"images/a\.tif with .* is listed twice"):
        find_scenes(with_manifest(config, rows + rows.splitlines()[1]), 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\nimages/a.tif\n", "m.csv line 2: 1 columns, expected 2"),
        (
            "image,label,split\n\nimages/a.tif,masks/a.tif,trian\n",
            "m.csv line 3: split 'trian'; expected train",
        ),
        ("image,label\nimages/a.tif,\n", "m.csv line 2: the column label is empty"),
        ("image,label\nimages/z.tif,masks/a.tif\n", "m.csv line 2: .*images/z.tif: no such file"),
        ("image,lable\nimages/a.tif,masks/a.tif\n", "m.csv line 1: no column 'label'; did you mean 'lable'"),
        (
            "image,label,spilt\nimages/a.tif,masks/a.tif,val\n",
            "m.csv line 1: no column 'split'; did you mean 'spilt'",
        ),
        ('image,label\n"images/a.tif,masks/a.tif\n', "m.csv line 3?2?: cannot be read as CSV"),
        (b"image,label\nimages/a.tif,masks/\xff.tif\n", "m.csv line 2: not UTF-8"),
        ("image,label\n../a.tif,masks/a.tif\n", "m.csv line 2: ../a.tif is not below dataset.root"),
        ("image,label\nimages/../../a.tif,masks/a.tif\n", "m.csv line 2: .* is not below dataset.root"),
        ("image,label\n/etc/passwd,masks/a.tif\n", "m.csv line 2: /etc/passwd is not below dataset.root"),
        ("image,label\ns3://x/a.tif,masks/a.tif\n", "s3://x/a.tif is not below .*allow_outside=true"),
        ("image,label\n/vsizip/x.zip/a.tif,masks/a.tif\n", "is not below dataset.root"),
        ("image,label\n", "the manifest names no image"),
        ("", "the manifest names no image"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(
    config: DatasetConfig, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as found:
        find_scenes(with_manifest(config, text), 0)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "FeatureCollection",\n "features": [}', "m.geojson line 2: not JSON"),
        ("[]", "not a GeoJSON FeatureCollection"),
        ('{"features": [{"properties": {"image": "images/a.tif"}}]}', "feature 1: no column 'label'"),
        ('{"features": [3]}', "feature 1: no properties"),
    ],
)
def test_a_geojson_that_is_no_manifest_is_refused(config: DatasetConfig, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_scenes(with_manifest(config, text, "m.geojson"), 0)


def test_a_manifest_may_name_other_places_where_that_is_allowed(
    config: DatasetConfig, tmp_path: Path
) -> None:
    outside = write_raster(tmp_path.parent / f"{tmp_path.name}_outside.tif", draw_scene(0)[0], nodata=0)
    rows = (
        f"image,label,split\n{outside},masks/a.tif,train\nimages/b.tif,../{tmp_path.name}/masks/b.tif,val\n"
    )
    config = with_manifest(config, rows, allow_outside=True)
    found = find_scenes(config, 0)
    assert_same(config, found["train"][0], 0)
    assert [found[split][0].name for split in ("train", "val")] == [outside.name, "images/b.tif"]


OUTSIDE = pytest.mark.fault("manifest", "links, ../m.csv and assets of STAC items lead out of dataset.root")


@pytest.fixture
def elsewhere(config: DatasetConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside the data set with an image and a mask."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for kind in ("images", "masks"):
        shutil.copy(Path(config.root) / kind / "a.tif", folder / f"{kind}.tif")
    return folder


@OUTSIDE
@pytest.mark.parametrize("column", ["image", "label", "aoi", "folder", "chain"])
def test_a_link_of_a_manifest_is_followed_out_of_the_root_only_where_that_is_allowed(
    config: DatasetConfig, elsewhere: Path, column: str
) -> None:
    root = Path(config.root)
    write_polygons(elsewhere / "area.gpkg", [box(0, 0, 80, 40)], None)
    (root / "image.tif").symlink_to(elsewhere / "images.tif")
    (root / "label.tif").symlink_to(elsewhere / "masks.tif")
    (root / "area.gpkg").symlink_to(elsewhere / "area.gpkg")
    (root / "folder").symlink_to(elsewhere)
    (root / "chain.tif").symlink_to(root / "image.tif")
    row = {
        "image": "image.tif,masks/a.tif,",
        "label": "images/a.tif,label.tif,",
        "aoi": "images/a.tif,masks/a.tif,area.gpkg",
        "folder": "folder/images.tif,masks/a.tif,",
        "chain": "chain.tif,masks/a.tif,",
    }[column]
    config = with_manifest(config, f"image,label,aoi\n{row}\n", split=SplitConfig(by="pattern"))
    with pytest.raises(DataError, match=rf"m\.csv line 2: .* is not below .* at {elsewhere}.*allow_outside"):
        open_scenes(config)
    config.allow_outside = True
    (scene,) = open_scenes(config)
    assert_same(config, scene, 0) if column != "aoi" else None


@OUTSIDE
def test_links_that_stay_below_the_root_are_followed_and_so_is_that_of_the_root_itself(
    config: DatasetConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = Path(config.root)
    (root / "more").symlink_to(root / "images")
    link = tmp_path_factory.mktemp("links") / "root"
    link.symlink_to(root)
    rows = f"image,label\nmore/a.tif,masks/a.tif\n{link}/images/b.tif,masks/b.tif\n"
    config = with_manifest(replace(config, root=str(link)), rows, split=SplitConfig(by="pattern"))
    assert [scene.name for scene in open_scenes(config)] == ["more/a.tif", "images/b.tif"]


@OUTSIDE
@pytest.mark.parametrize("how", ["relative", "absolute", "link"])
def test_a_manifest_lies_below_the_root_unless_that_is_allowed(
    config: DatasetConfig, elsewhere: Path, how: str
) -> None:
    manifest = elsewhere / "m.csv"
    manifest.write_text("image,label\nimages/a.tif,masks/a.tif\n")
    (Path(config.root) / "link.csv").symlink_to(manifest)
    relative = os.path.relpath(manifest, config.root)
    name = {"relative": relative, "absolute": str(manifest), "link": "link.csv"}[how]
    split = SplitConfig(by="pattern")
    config = replace(config, images=None, masks=None, manifest=name, split=split)
    with pytest.raises(DataError, match=r"dataset\.manifest=.* is not below dataset\.root=.*allow_outside"):
        open_scenes(config)
    config.allow_outside = True
    assert [scene.name for scene in open_scenes(config)] == ["images/a.tif"]


@OUTSIDE
@pytest.mark.parametrize("how", ["absolute", "relative", "link", "remote", "vsi"])
@pytest.mark.parametrize("named", ["glob", "manifest"])
def test_assets_of_a_stac_item_lie_below_the_root_unless_that_is_allowed(
    config: DatasetConfig, elsewhere: Path, how: str, named: str
) -> None:
    root = Path(config.root)
    (root / "link.tif").symlink_to(elsewhere / "images.tif")
    relative = os.path.relpath(elsewhere / "images.tif", root / "items")
    href = {
        "absolute": str(elsewhere / "images.tif"),
        "relative": relative,
        "link": "../link.tif",
        "remote": "https://127.0.0.1:1/a.tif",
        "vsi": f"/vsisubfile/0,{elsewhere / 'images.tif'}",
    }[how]
    (root / "items").mkdir()
    item = {"type": "Feature", "assets": {"R": {"href": href, "roles": ["data"]}}}
    (root / "items" / "a.json").write_text(json.dumps(item))
    split = SplitConfig(by="pattern")
    if named == "glob":
        config = replace(config, images="items/*.json", split=split)
    else:
        config = with_manifest(config, "image,label\nitems/a.json,masks/a.tif\n", split=split)
    with pytest.raises(DataError, match=r"a\.json: the asset .* is not below dataset\.root=.*allow_outside"):
        open_scenes(config)


def test_the_splits_of_a_manifest_are_not_passed_over(config: DatasetConfig) -> None:
    config = with_manifest(config, "images/a.tif,masks/a.tif,trn\nimages/b.tif,masks/b.tif,val\n")
    config.split = SplitConfig(val=0.5)
    with pytest.raises(ConfigError, match=r"dataset\.split\.by=fraction: the manifest has a column split"):
        find_scenes(config, 0)
    config = with_manifest(config, "images/a.tif,masks/a.tif\n")
    with pytest.raises(DataError, match="the manifest assigns no split to it"):
        find_scenes(config, 0)


def stac(config: DatasetConfig, prefix: str = "bands/") -> DatasetConfig:
    for name in "abc":
        assets = {
            "G": {
                "href": f"{prefix}{name}_G.tif",
                "roles": ["data"],
                "eo:bands": [{"name": "g", "common_name": "green"}],
            },
            "R": {
                "href": f"{prefix}{name}_R.tif",
                "type": "image/tiff",
                "bands": [{"name": "r", "eo:common_name": "red"}],
            },
            "N": {
                "href": "nowhere.tif",
                "roles": ["data"],
                "eo:bands": [{"name": "n", "common_name": "nir"}],
            },
            "thumbnail": {"href": "nowhere.png", "roles": ["thumbnail"]},
        }
        (Path(config.root) / f"{name}.json").write_text(json.dumps({"type": "Feature", "assets": assets}))
    config.images, config.split = "*.json", SplitConfig(by="pattern", val="b.json")
    return config


@pytest.mark.parametrize("bands", [["red", "green"], ["r", "G"], ["R", "g"], [2, 1]])
def test_a_stac_item_gives_the_bands_that_are_asked_for(
    config: DatasetConfig, bands: list[int | str]
) -> None:
    config = stac(config)
    config.bands = bands
    found = find_scenes(config, 0)
    assert_same(config, found["train"][0], 0)
    with RasterReader(found["train"][0].image.path) as reader:
        assert reader.info.names == tuple(
            "RG"[n - 1] if isinstance(n, int) else n for n in bands
        ) or isinstance(bands[0], int)


@pytest.mark.fault("bands", "several bands in one asset of a STAC item are refused")
@pytest.mark.parametrize("bands", [["red", "green"], [1, 2], None])
def test_a_data_set_is_read_from_items_whose_asset_holds_all_bands(
    config: DatasetConfig, bands: list[int | str] | None
) -> None:
    listed = [{"name": "r", "common_name": "red"}, {"name": "g", "common_name": "green"}]
    for name in "abc":
        both = {"href": f"images/{name}.tif", "roles": ["data"], "eo:bands": listed}
        (Path(config.root) / f"{name}.json").write_text(json.dumps({"assets": {"image": both}}))
    config = replace(config, images="*.json", split=SplitConfig(by="pattern", val="b.json"), bands=bands)
    scene = find_scenes(config, 0)["train"][1]
    assert_same(config, scene, 2)
    if bands is None:
        assert scene.image.names == ("red", "green")


def test_a_stac_item_that_does_not_fit_is_named(config: DatasetConfig) -> None:
    config = stac(config)
    config.bands = ["read"]
    with pytest.raises(DataError, match=r"a\.json: no band 'read' among its assets; did you mean 'red'"):
        find_scenes(config, 0)
    config.bands = ["nir"]
    with pytest.raises(DataError, match=r"nowhere\.tif: cannot be opened as a raster \(no such file\)"):
        find_scenes(config, 0)
    (Path(config.root) / "a.json").write_text("{}")
    with pytest.raises(DataError, match=r"a\.json: not a STAC item"):
        find_scenes(config, 0)


@pytest.fixture
def address(config: DatasetConfig) -> Iterator[str]:
    """Of a server of the data set's folder."""
    command = [sys.executable, str(Path(__file__).parent / "file_server.py"), config.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


def test_remote_files_are_read_as_those_on_disk(config: DatasetConfig, address: str) -> None:
    write_polygons(
        Path(config.root) / "labels.geojson", [box(0, 0, 80, 50)], None, "EPSG:32633", driver="GeoJSON"
    )
    rows = [
        "image,label,split",
        f"{address}/images/a.tif,{address}/masks/a.tif,train",
        f"{address}/bands/b_R.tif;/vsicurl/{address}/bands/b_G.tif,masks/b.tif,val",
        f"{address}/images/c.tif,{address}/labels.geojson,test",
    ]
    config = with_manifest(config, "\n".join(rows), allow_outside=True, label=LabelConfig(uncovered="z"))
    found = find_scenes(config, 0)
    assert_same(config, found["train"][0], 0)
    assert_same(config, found["val"][0], 1)
    labels = pixels(config, found["test"][0])[1]
    assert (labels[:50, 7:] == 1).all()
    assert (labels[50:, 7:] == 2).all()
    config = with_manifest(config, rows[1].replace("a.tif", "z.tif"), allow_outside=True, label=LabelConfig())
    with pytest.raises(DataError, match=r"images/z\.tif: cannot be opened as a raster"):
        find_scenes(config, 0)


def test_the_assets_of_a_stac_item_may_be_remote(config: DatasetConfig, address: str) -> None:
    config = stac(config, prefix=f"{address}/bands/")
    config.bands, config.allow_outside = ["red", "green"], True
    assert_same(config, find_scenes(config, 0)["train"][1], 2)


def test_a_stac_item_may_be_remote_with_its_assets_beside_it(config: DatasetConfig, address: str) -> None:
    config = stac(config)
    rows = ["image,label,split", f"{address}/a.json,masks/a.tif,train", "b.json,masks/b.tif,val"]
    config = with_manifest(config, "\n".join(rows), allow_outside=True, label=LabelConfig())
    config.bands = ["red", "green"]
    assert_same(config, find_scenes(config, 0)["train"][0], 0)


def test_addresses_are_given_to_gdal_in_its_own_words() -> None:
    assert gdal_path("s3://bucket/a.tif") == "/vsis3/bucket/a.tif"
    assert gdal_path("https://x.org/a.tif?b=1") == "/vsicurl/https://x.org/a.tif?b=1"
    assert gdal_path("/vsicurl/http://x.org/a.tif") == "/vsicurl/http://x.org/a.tif"


def test_globs_may_be_absolute_leave_the_root_begin_with_a_dot_and_hold_brackets(
    config: DatasetConfig, tmp_path: Path
) -> None:
    usual = [scene.name for scene in find_scenes(config, 0)["train"]]
    for images, masks in (
        (f"{tmp_path}/images/*.tif", f"{tmp_path}/masks/*.tif"),
        ("./images/*.tif", "masks//*.tif"),
        ("images/[a-c].tif", "masks/[!x].tif"),
    ):
        found = find_scenes(replace(config, images=images, masks=masks), 0)
        assert [scene.name for scene in found["train"]] == usual
        assert_same(config, found["train"][0], 0)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    away = replace(config, root=str(tmp_path / "link"), images="[ab].tif", masks=f"{tmp_path}/masks/*.tif")
    assert_same(away, find_scenes(replace(away, split=SplitConfig(val=0.5)), 0)["train"][0], 0)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("images/*.TIF", r"images/\*\.TIF; available: 3 \*\.tif; see dataset\.root"),
        ("images", r"images, which is a folder; images/\*\.tif names the files in it; see"),
        ("pictures/*.tif", r"pictures/\*\.tif; see dataset\.root"),
    ],
)
def test_where_no_image_matches_what_lies_there_is_named(
    config: DatasetConfig, images: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        find_scenes(replace(config, images=images), 0)


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_manifest_whose_columns_are_not_divided_by_commas_says_so(config: DatasetConfig, sign: str) -> None:
    text = "image,label,split\nimages/a.tif,masks/a.tif,train\n".replace(",", sign)
    with pytest.raises(
        DataError, match=r"m\.csv line 1: (semicolons|tabs) between the columns, expected com"
    ):
        find_scenes(with_manifest(config, text), 0)


def test_the_header_of_a_manifest_may_have_capitals(config: DatasetConfig) -> None:
    rows = "".join(
        f"images/{n}.tif,masks/{n}.tif,{s}\n" for n, s in zip("abc", ("trn", "val", "tst"), strict=True)
    )
    found = find_scenes(with_manifest(config, f"Image,Label,SPLIT\n{rows}"), 0)
    assert [scene.name for scene in found["test"]] == ["images/c.tif"]


def test_lists_and_tables_of_a_spreadsheet_are_read_with_their_byte_order_mark(
    config: DatasetConfig, tmp_path: Path
) -> None:
    for name, lines in {"train.txt": "a.tif\r\nc.tif\r\n", "val.txt": "b\r\n"}.items():
        (tmp_path / name).write_bytes(f"\ufeff{lines}".encode())
    found = find_scenes(replace(config, split=SplitConfig(by="list", train="train.txt", val="val.txt")), 0)
    assert [scene.name for scene in found["train"]] == ["images/a.tif", "images/c.tif"]
    (tmp_path / "places.csv").write_bytes("\ufeffplace,x".encode() + b"\r\nZ\xfcrich,1\r\n")
    table = SplitConfig(val=0.34, table="places.csv", column="place")
    with pytest.raises(DataError, match=r"places\.csv: not UTF-8 text; save it as UTF-8"):
        find_scenes(replace(config, split=table), 0)
    (tmp_path / "places.csv").write_bytes("\ufeffplace,name\r\na,1\r\nb,2\r\nc,3\r\n".encode())
    assert len(find_scenes(replace(config, split=table), 0)["val"]) == 1


@pytest.mark.parametrize("cache", ["none", "memmap"])
def test_near_infrared_that_is_marked_as_alpha_is_a_band_where_it_is_asked_for(
    config: DatasetConfig, cache: str
) -> None:
    config.cache = cache
    image = np.random.default_rng(0).integers(1, 255, (4, 96, 80), np.uint8)
    image[3, :20] = 0
    for name in "abc":
        write_raster(Path(config.root) / "images" / f"{name}.tif", image)
    scene = find_scenes(config, 0)["train"][0]
    found, _, valid = pixels(config, scene)
    assert len(found) == 3
    np.testing.assert_array_equal(valid, image[3] > 0)
    assert "band 4 is marked as alpha" in scene.notes[0]
    assert "set dataset.bands=[1,2,3,4]" in scene.notes[0]
    config.bands = [1, 2, 3, 4]
    scene = find_scenes(config, 0)["train"][0]
    found, _, valid = pixels(config, scene)
    np.testing.assert_array_equal(found, image)
    assert valid.all()
    assert scene.notes == ()
    config.allow_leakage = True  # the images are one and the same
    assert SceneDataModule(config, 0).band_names == ["1", "2", "3", "4"]
