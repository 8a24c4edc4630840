"""What `geo_seg begin` writes passes the check and trains: real sets in raw form, and drawn layouts."""

import contextlib
import json
import os
from pathlib import Path

import pytest

from geo_seg.begin.run import main
from tests.conftest import Run
from tests.drawn_layouts import LAYOUTS

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
REAL = {  # classes, and how many scenes train, validate and test
    "multiclass_dubai": ("building land_unpaved road vegetation water", (36, 18, 9)),
    "binary_buildings_inria": ("background foreground", (25, 9, 0)),
    "binary_forest_amazon": ("background foreground", (17, 6, 6)),
    "multiband_hls": ("tree grass_shrub cropland built bare water", None),
    "extras/s2_13band_eolearn": (
        "artificial surface,cultivated land,forest,grassland,schrubland",
        (1, 1, 1),
    ),
}
pytestmark = pytest.mark.slow


def check_and_train(run: Run, folder: Path, data: Path) -> dict[str, object]:
    """The scores of a short training with the YAML that is written for a folder."""
    with contextlib.chdir(folder):
        assert main([str(data), "--name", "mine"]) == 0
    mine = ["--config-dir", "config", "dataset=mine"]
    checked = run("train.py", *mine, "mode=check", "hydra.run.dir=checked")
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "this data set can be trained on" in checked.stdout
    trained = run("train.py", *mine, *FEW, "hydra.run.dir=run")
    assert (trained.returncode, trained.stderr) == (0, "")
    scores: dict[str, object] = json.loads((folder / "run" / "metrics.json").read_text())
    return scores


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_drawn_layout_passes_the_check_and_trains(run: Run, tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path / "data")
    scores = check_and_train(run, tmp_path, tmp_path / "data")
    assert scores[str(scores["split"])]["pixels"] > 0  # type: ignore[index]


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="needs real imagery: GEO_SEG_DATA names no folder")
@pytest.mark.parametrize("name", REAL)
def test_a_real_set_in_raw_form_passes_the_check_and_trains(run: Run, tmp_path: Path, name: str) -> None:
    scores = check_and_train(run, tmp_path, Path(DATA) / name)
    classes, _ = REAL[name]
    assert [*scores[str(scores["split"])]["classes"]] == classes.split("," if "," in classes else " ")  # type: ignore[index]
