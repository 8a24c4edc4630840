"""What `geo_seg begin` writes passes the check and trains: real sets in raw form, and drawn layouts."""

import contextlib
import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from geo_seg.begin.run import main
from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.scenes.discovery import find_scenes
from tests.conftest import Run
from tests.drawn_layouts import LAYOUTS, read_dataset

DATA = os.environ.get("GEO_SEG_DATA", "")
FEW = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=2",
    "+trainer.limit_test_batches=2",
    "model.encoder=tu-mobilenetv3_small_050",
    "dataset.batch_size=2",
]
COVER = ["artificial surface", "cultivated land", "forest", "grassland", "schrubland"]
REAL = {  # values of each class
    "multiclass_dubai": {"building": [0], "land_unpaved": [1], "road": [2], "vegetation": [3], "water": [4]},
    "binary_buildings_inria": {"background": [0], "foreground": [255]},
    "binary_forest_amazon": {"background": [0], "foreground": [1]},
    "multiband_hls": {
        name: [n] for n, name in enumerate(("tree", "grass_shrub", "cropland", "built", "bare", "water"))
    },
    "extras/s2_13band_eolearn": {name: [name] for name in COVER},
}
pytestmark = pytest.mark.slow


def check_and_train(run: Run, folder: Path, data: Path) -> DatasetConfig:
    """The YAML that is written for a folder, after a check and a short training with it."""
    with contextlib.chdir(folder):
        assert main([str(data), "--name", "mine"]) == 0
    mine = ["--config-dir", "config", "dataset=mine"]
    checked = run("train.py", *mine, "mode=check", "hydra.run.dir=checked")
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "this data set can be trained on" in checked.stdout
    trained = run("train.py", *mine, *FEW, "hydra.run.dir=run")
    assert (trained.returncode, trained.stderr) == (0, "")
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    scores = metrics[metrics["split"]]
    config = read_dataset(folder / "config" / "dataset" / "mine.yaml")
    assert [row["name"] for row in scores["classes"]] == [row["name"] for row in config.classes]
    assert scores["pixels"] > 0
    return config


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_drawn_layout_passes_the_check_and_trains(run: Run, tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path / "data")
    check_and_train(run, tmp_path, tmp_path / "data")


def places_of(name: str, scenes: list[Any]) -> set[object]:
    """What must not be in two splits: the place of every scene, by another way than the YAML's."""
    if name == "multiclass_dubai":
        return {scene.name.partition("_")[0] for scene in scenes}
    if name == "multiband_hls":
        with (Path(DATA) / name / "tiles.csv").open() as file:
            location = {row["tile"]: row["location_group"] for row in csv.DictReader(file)}
        return {location[Path(scene.name).stem] for scene in scenes}
    return {(scene.name, scene.blocks) for scene in scenes}


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="needs real imagery: GEO_SEG_DATA names no folder")
@pytest.mark.parametrize("name", REAL)
def test_a_real_set_in_raw_form_passes_the_check_and_trains(run: Run, tmp_path: Path, name: str) -> None:
    config = check_and_train(run, tmp_path, Path(DATA) / name)
    assert {row["name"]: row["values"] for row in config.classes} == REAL[name]
    splits = find_scenes(config, seed=0)
    places = {split: places_of(name, scenes) for split, scenes in splits.items()}
    assert places["train"] and places["val"]
    assert len(set.union(*places.values())) == sum(map(len, places.values()))
    if name == "binary_buildings_inria":  # comes with lists
        for split in ("train", "val"):
            listed = (Path(DATA) / name / f"{split}.txt").read_text().split()
            assert sorted(Path(scene.name).name for scene in splits[split]) == sorted(listed)
