"""The four real data sets train through their YAMLs, and their scenes are mapped onto their own grid."""

import json
import os
from pathlib import Path

import pytest
import rasterio

from tests.conftest import Run

DATA = os.environ.get("GEO_SEG_DATA", "")
SETS = {
    "dubai": (5, "multiclass_dubai/images/tile8_part1.jpg"),
    "inria": (2, "binary_buildings_inria/images/austin1_0.tif"),
    "amazon": (2, None),
    "hls": (6, None),
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(not DATA, reason="needs real imagery: GEO_SEG_DATA names no folder"),
]


@pytest.mark.parametrize("name", SETS)
def test_a_real_data_set_trains_and_one_of_its_scenes_is_mapped(run: Run, tmp_path: Path, name: str) -> None:
    classes, scene = SETS[name]
    few = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=3"]
    small = ["dataset.window=64", "model.encoder=tu-mobilenetv3_small_050", "+trainer.limit_test_batches=4"]
    result = run("train.py", f"dataset={name}", "loss=dice", *few, *small, "hydra.run.dir=run")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(found[found["split"]]["classes"]) == classes
    assert found[found["split"]]["pixels"] > 0
    image = Path(DATA) / scene if scene else Path(result.stdout.split("input=")[1].split(" output=")[0])
    result = run("inference.py", "checkpoint=run", f"input={image}", "output=maps")
    assert (result.returncode, result.stderr) == (0, "")
    with (
        rasterio.open(image) as source,
        rasterio.open(tmp_path / "maps" / f"{image.stem}_classes.tif") as made,
    ):
        assert (made.shape, made.crs, made.transform) == (source.shape, source.crs, source.transform)
        pixels = made.read(1, masked=True)
        assert pixels.count() > 0
        assert pixels.max() < classes
