"""The hash of the code covers what trains, and only that."""

import shutil
from pathlib import Path

import pytest

import geo_seg
from geo_seg.run_folder import code_hash
from tests.conftest import REPOSITORY
from tests.test_architecture import FLOORS

TRAINS = {"losses", "config", "raster", "data", "models", "metrics", "checkpoints", "prediction", "training"}
TRAINS |= {"tiling"}
NEVER_TRAINS = {
    "begin",
    "errors",
    "runtime",
    "cli",
    "run_folder",
    "vectorize",
    "report",
    "doctor",
    "inference",
    "sweeps",
    "commands",
}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source in a folder of its own."""
    for name in ("geo_seg", "losses"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(geo_seg, "__file__", str(tmp_path / "geo_seg" / "__init__.py"))
    return tmp_path


def change(folder: Path, room: str) -> None:
    path = folder / ("losses" if room == "losses" else f"geo_seg/{room}")
    file = sorted(path.rglob("*.py"))[-1] if path.is_dir() else path.with_suffix(".py")
    file.write_text(file.read_text() + "\n# changed\n")


def test_every_room_trains_or_not() -> None:
    rooms = {room.removeprefix("geo_seg.") for room in FLOORS} - {"modes", "__main__"}
    assert rooms == TRAINS | NEVER_TRAINS and not TRAINS & NEVER_TRAINS


@pytest.mark.parametrize("room", sorted(TRAINS))
def test_code_that_trains_changes_the_hash(room: str, copy: Path) -> None:
    before = code_hash()
    change(copy, room)
    assert code_hash() != before


@pytest.mark.parametrize("room", sorted(NEVER_TRAINS))
def test_code_that_does_not_train_leaves_finished_runs_of_a_sweep_as_they_are(room: str, copy: Path) -> None:
    before = code_hash()
    change(copy, room)
    assert code_hash() == before
