"""Real scenes train from what there is of them: polygons, a file per band, STAC items, coloured masks."""

import json
import os
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from tests.conftest import Run

DATA = Path(os.environ.get("GEO_SEG_DATA", ""))
GDL = DATA / "extras" / "gdl_main_legacy_testdata"
VEGAS = "SpaceNet_AOI_2_Las_Vegas-056155973080_01_P001-WV03"
SHORT = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=3",
    "dataset.window=64",
    "model.encoder=tu-mobilenetv3_small_050",
    "hydra.run.dir=run",
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(not DATA.name, reason="needs real imagery: GEO_SEG_DATA names no folder"),
]


def scores(run: Run, folder: Path, *overrides: str) -> dict[str, object]:
    result = run("train.py", *SHORT, f"dataset.cache_dir={folder / 'cache'}", *overrides)
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads((folder / "run" / "metrics.json").read_text())
    return found[found["split"]]  # type: ignore[no-any-return]


def test_new_brunswick_trains_from_polygons(run: Run, tmp_path: Path) -> None:
    found = scores(run, tmp_path, "dataset=newbrunswick", "loss=dice")
    assert len(found["classes"]) == 4  # type: ignore[arg-type]
    assert found["pixels"] == 88848 + 32937 + 5458 + 1881  # of 482 x 326, the others are in no polygon


def halves(folder: Path) -> None:
    """The west and the east of the SpaceNet scene: to train and to validate in one image."""
    with rasterio.open(GDL / f"{VEGAS}-R.tif") as source:
        left, bottom, right, top = source.bounds
    middle = (left + right) / 2
    for name, part in {"west": (left, middle), "east": (middle, right)}.items():
        shape = shapely.box(part[0], bottom, part[1], top)
        pyogrio.raw.write(
            folder / f"{name}.gpkg",
            np.array([shapely.to_wkb(shape)], object),
            [],
            [],
            geometry_type="Polygon",
            crs="EPSG:26911",
        )


@pytest.mark.parametrize("kind", ["files", "stac"])
def test_spacenet_trains_from_a_file_per_band_and_from_its_stac_item(
    run: Run, tmp_path: Path, kind: str
) -> None:
    halves(tmp_path)
    image = ";".join(str(GDL / f"{VEGAS}-{band}.tif") for band in "RGBN")
    bands = "null"
    if kind == "stac":
        item = json.loads((GDL / f"{VEGAS}.json").read_text())
        for asset in item["assets"].values():
            asset["href"] = str(GDL / Path(asset["href"]).name)  # what it links to is not online any more
        (tmp_path / "item.json").write_text(json.dumps(item))
        image, bands = "item.json", "[red,green,blue,nir]"
    rows = [f"{image},{GDL / VEGAS}.gpkg,{s},{a}.gpkg" for s, a in (("trn", "west"), ("val", "east"))]
    (tmp_path / "scenes.csv").write_text("\n".join(["image,label,split,aoi", *rows]))
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "vegas.yaml").write_text(
        f"name: vegas\nroot: {tmp_path}\nmanifest: scenes.csv\nallow_outside: true\nmode: binary\n"
        f"classes: [other, building]\nbands: {bands}\nlabel: {{uncovered: other}}\nsplit: {{by: manifest}}\n"
        "allow_leakage: true\n"  # windows of the west see a strip of the east
    )
    found = scores(run, tmp_path, "dataset=vegas", "loss=dice", "--config-dir", str(tmp_path))
    assert found["pixels"] == 426 * 206  # the east half of 413 columns, by pixel centres


def test_lulc_polygons_of_eo_learn_train_and_equal_its_own_raster(run: Run, tmp_path: Path) -> None:
    names = ["cultivated land", "forest", "grassland", "schrubland", "artificial surface"]
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "lulc.yaml").write_text(
        f"name: lulc\nroot: {DATA}/extras/s2_13band_eolearn\nimages: s2_l1c_date*.tif\n"
        "masks: lulc_polygons.gpkg\nlabel: {attribute: LULC_NAME}\nignore_values: ['']\n"
        f"classes: {[{'name': name, 'values': [name]} for name in names]}\n"
        "split: {by: pattern, val: '*date4.tif'}\nallow_leakage: true\n"  # the same place: it only has to run
    )
    found = scores(run, tmp_path, "dataset=lulc", "loss=dice", "--config-dir", str(tmp_path))
    with rasterio.open(DATA / "extras" / "s2_13band_eolearn" / "lulc_mask.tif") as source:
        own = source.read(1)
    assert found["pixels"] == (own > 0).sum()
    [kept] = (tmp_path / "cache" / "labels").glob("*.tif")  # five dates, one place: burnt once
    with rasterio.open(kept) as source:
        burnt = source.read(1, masked=True)
    numbers = {0: 1, 1: 2, 2: 3, 3: 4, 4: 8}
    expected = np.vectorize(numbers.get)(burnt.filled(0))
    np.testing.assert_array_equal(np.where(burnt.mask, 0, expected), own)


def test_dubai_trains_from_its_coloured_masks(run: Run, tmp_path: Path) -> None:
    masks = ["dataset.masks=masks_rgb/*.png", "dataset.ignore_values=['#9b9b9b','#000000']"]
    colored = scores(run, tmp_path, "dataset=dubai", "loss=dice", *masks, "trainer.limit_val_batches=2")
    (tmp_path / "run").rename(tmp_path / "colored")
    plain = scores(run, tmp_path, "dataset=dubai", "loss=dice", "trainer.limit_val_batches=2")
    assert colored == plain
