"""The YAMLs of benchmarks read data of their layout: names, types, colours and splits as published."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.training_checks import parse_train_config
from geo_seg.data.datamodule import SceneDataModule
from tests.conftest import REPOSITORY, write_raster

SIDE = 40
PLACE = {"crs": None, "transform": None}


@pytest.fixture(autouse=True)
def clean_hydra(hydra_restore_singletons: object) -> None:
    """Leaves no state of Hydra's behind."""


def image(path: Path, seed: int, bands: int = 3, **profile: object) -> None:
    pixels = np.random.default_rng(seed).integers(1, 255, (bands, SIDE, SIDE)).astype(np.uint8)
    write_raster(path, pixels, **{**PLACE, **profile})


def mask(path: Path, seed: int, values: list[int], **profile: object) -> None:
    pixels = np.random.default_rng(seed).choice(values, (SIDE, SIDE)).astype(np.uint8)
    write_raster(path, pixels, **{**PLACE, **profile})


def colored(path: Path, seed: int, colors: list[str], **profile: object) -> None:
    listed = np.array([list(bytes.fromhex(color)) for color in colors], np.uint8)
    pixels = listed[np.random.default_rng(seed).integers(0, len(colors), (SIDE, SIDE))]
    write_raster(path, pixels.transpose(2, 0, 1), **{**PLACE, **profile})


def landcoverai(root: Path) -> None:
    names = [f"M-33-20-D-c-4-2_{number}" for number in range(6)]
    for seed, name in enumerate(names):
        image(root / "output" / f"{name}.jpg", seed, driver="JPEG")
        mask(root / "output" / f"{name}_m.png", seed, [0, 1, 2, 3, 4], driver="PNG")
    for split, part in (("train", names[:4]), ("val", names[4:5]), ("test", names[5:])):
        (root / f"{split}.txt").write_text("\n".join(part) + "\n")


def loveda(root: Path) -> None:
    for seed, (split, kind) in enumerate(
        (s, k) for s in ("Train", "Val", "Test") for k in ("Urban", "Rural")
    ):
        image(root / split / kind / "images_png" / f"{seed}.png", seed, driver="PNG")
        if split != "Test":
            mask(root / split / kind / "masks_png" / f"{seed}.png", seed, list(range(8)), driver="PNG")


ISPRS = ["ffffff", "0000ff", "00ffff", "00ff00", "ffff00", "ff0000"]


def potsdam(root: Path) -> None:
    tiles = {
        2: range(10, 15),
        3: range(10, 15),
        4: range(10, 16),
        5: range(10, 16),
        6: range(7, 16),
        7: range(7, 14),
    }
    for row, cols in tiles.items():
        for col in cols:
            image(root / "2_Ortho_RGB" / f"top_potsdam_{row}_{col}_RGB.tif", 100 * row + col)
            strange = ["fcff00"] if (row, col) == (4, 12) else []
            file = root / "5_Labels_all" / f"top_potsdam_{row}_{col}_label.tif"
            colored(file, 100 * row + col, ISPRS + strange)


AREAS = [*range(1, 9), *range(10, 18), 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 37, 38]


def vaihingen(root: Path) -> None:
    for area in AREAS:
        image(root / "top" / f"top_mosaic_09cm_area{area}.tif", area)
        colored(root / "gts" / f"top_mosaic_09cm_area{area}.tif", area, ISPRS)


def inria(root: Path) -> None:
    for number, city in enumerate(("austin", "chicago", "kitsap", "tyrol-w", "vienna")):
        for tile in range(1, 37, 2):
            image(root / "train" / "images" / f"{city}{tile}.tif", 100 * number + tile)
            mask(root / "train" / "gt" / f"{city}{tile}.tif", tile, [0, 255])


def deepglobe(root: Path) -> None:
    colors = ["00ffff", "ffff00", "ff00ff", "00ff00", "0000ff", "ffffff", "000000", "00fffe"]
    for number in range(10):
        image(root / "train" / f"{1000 + 7 * number}_sat.jpg", number, driver="JPEG")
        colored(root / "train" / f"{1000 + 7 * number}_mask.png", number, colors, driver="PNG")
        image(root / "valid" / f"{9000 + number}_sat.jpg", 50 + number, driver="JPEG")


def flair1(root: Path) -> None:
    domains = ["D006_2020", "D013_2020", "D004_2021", "D077_2021"]
    files = [("flair_{}_train", domain) for domain in domains] + [("flair_1_{}_test", "D012_2019")]
    for number, (folder, domain) in enumerate(files):
        place = Path(domain) / "Z10_AU"
        image(root / folder.format("aerial") / place / "img" / f"IMG_{number:06}.tif", number, 5)
        mask(
            root / folder.format("labels") / place / "msk" / f"MSK_{number:06}.tif",
            number,
            list(range(1, 20)),
        )


def openearthmap(root: Path) -> None:
    names = [f"{region}_{number}.tif" for region in ("aachen", "tokyo") for number in (1, 2, 3, 4)]
    for seed, name in enumerate(names):
        region = name.split("_")[0]
        image(root / region / "images" / name, seed)
        if not name.endswith("_4.tif"):
            mask(root / region / "labels" / name, seed, list(range(9)))
    for split, ends in (("train", ("_1.tif", "_2.tif")), ("val", ("_3.tif",)), ("test", ("_4.tif",))):
        (root / f"{split}.txt").write_text("\n".join(name for name in names if name.endswith(ends)))


def massachusetts(root: Path) -> None:
    for number, split in enumerate(("train", "train", "train", "val", "test")):
        name = f"22678915_{number}"
        image(root / split / f"{name}.tiff", number)
        colored(root / f"{split}_labels" / f"{name}.tif", number, ["000000", "ff0000"])


LAYOUTS: dict[str, tuple[Callable[[Path], None], str, tuple[int, int, int], float]] = {
    # the folder below GEO_SEG_DATA, the scenes of each split, and the share of pixels with a label
    "landcoverai": (landcoverai, "landcover.ai.v1", (4, 1, 1), 1),
    "loveda": (loveda, "LoveDA", (2, 2, 2), 7 / 8),
    "potsdam": (potsdam, "Potsdam", (20, 4, 14), 1),
    "vaihingen": (vaihingen, "Vaihingen", (13, 3, 17), 1),
    "inria_full": (inria, "AerialImageDataset", (75, 15, 15), 1),
    "deepglobe": (deepglobe, "DeepGlobe", (7, 1, 2), 6 / 8),
    "flair1": (flair1, "FLAIR1", (2, 2, 1), 1),
    "openearthmap": (openearthmap, "OpenEarthMap_wo_xBD", (4, 2, 2), 8 / 9),
    "massachusetts": (massachusetts, "massachusetts_buildings/tiff", (3, 1, 1), 1),
}


def configured(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetConfig:
    monkeypatch.setenv("GEO_SEG_DATA", str(root))
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        overrides = [f"dataset={name}", f"dataset.cache_dir={root / 'cache'}", "loss=dice"]
        return parse_train_config(compose("train", overrides)).dataset


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_benchmark_is_read_and_split_as_published(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, folder, scenes, labelled = LAYOUTS[name]
    draw(tmp_path / folder)
    data = SceneDataModule(configured(name, tmp_path, monkeypatch), 0)
    assert tuple(len(data.scenes[split]) for split in ("train", "val", "test")) == scenes
    counts = np.array(data.class_counts)
    assert counts.min() > 0
    assert counts.sum() / (scenes[0] * SIDE * SIDE) == pytest.approx(labelled, abs=0.02)
    # all classes are drawn alike, but for those that several values stand for
    kinds = np.array([len(values) for values in data.table.values])
    np.testing.assert_allclose(counts / counts.sum(), kinds / kinds.sum(), atol=0.05)


def test_potsdam_and_vaihingen_share_out_all_their_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    potsdam(tmp_path / "Potsdam")
    vaihingen(tmp_path / "Vaihingen")
    data = SceneDataModule(configured("potsdam", tmp_path, monkeypatch), 0)
    rows = [tuple(map(int, scene.name.split("_")[4:6])) for scene in data.scenes["test"]]
    assert all(col >= 13 for _, col in rows)
    data = SceneDataModule(configured("vaihingen", tmp_path, monkeypatch), 0)
    areas = {
        s: [int(scene.name.split("area")[1][:-4]) for scene in found] for s, found in data.scenes.items()
    }
    assert sorted(area for found in areas.values() for area in found) == AREAS
    public = [1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37]
    assert sorted(areas["train"] + areas["val"]) == public


def test_flair_takes_its_validation_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flair1(tmp_path / "FLAIR1")
    data = SceneDataModule(configured("flair1", tmp_path, monkeypatch), 0)
    assert [scene.name.split("/")[1] for scene in data.scenes["val"]] == ["D004_2021", "D077_2021"]
    assert len(data.bands.mean) == 5
