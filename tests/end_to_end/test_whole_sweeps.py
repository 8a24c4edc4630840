"""Every choice of a group trains: what a user would try first."""

import json
from pathlib import Path

import pytest

import losses
from geo_seg.config.training_checks import registered_models
from tests.conftest import Run, small_overrides

pytestmark = pytest.mark.slow


def test_a_glob_sweeps_over_every_loss_that_fits_the_data(run: Run, small_root: Path, tmp_path: Path) -> None:
    result = run("train.py", "-m", *small_overrides(small_root), "loss=glob(*)", "hydra.sweep.dir=sweep")
    assert result.returncode == 0, result.stderr
    found = {p.parent.name.split("_unet_")[1] for p in tmp_path.glob("sweep/*/metrics.json")}
    assert found == set(losses.available("multiclass"))
    left_out = set(losses.available()) - found
    assert all(f"skipped: loss={name}" in result.stderr for name in left_out)


@pytest.mark.parametrize("name", sorted(registered_models()))
def test_every_model_trains_and_its_checkpoint_maps_a_raster(
    run: Run, small_root: Path, tmp_path: Path, name: str
) -> None:
    small = ["model.encoder=tu-vit_tiny_patch16_224"] if name == "dpt" else []
    result = run("train.py", *small_overrides(small_root), f"model={name}", *small, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 2
    scene = small_root / "images" / "s5.tif"
    result = run("inference.py", "checkpoint=run", f"input={scene}", "output=maps")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "maps" / "s5_classes.tif").is_file()


def test_the_demo_reaches_its_score_on_the_scene_that_was_held_back(run: Run, tmp_path: Path) -> None:
    result = run("train.py", "experiment=demo_quick", "hydra.run.dir=run")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["split"] == "test"
    assert found["test"]["miou"] > 0.75
