"""Imports point down: each floor knows only the floors below it."""

import ast

import pytest

from tests.conftest import REPOSITORY

FLOORS = {
    "losses": 0,
    "geo_seg.errors": 1,
    "geo_seg.commands": 1,
    "geo_seg.config": 1,
    "geo_seg.signatures": 1,
    "geo_seg.allocation": 1,
    "geo_seg.answers": 1,
    "geo_seg.checks": 1,
    "geo_seg.checkpoint_checks": 1,
    "geo_seg.split_checks": 1,
    "geo_seg.checkpoint_files": 1,
    "geo_seg.class_rows": 1,
    "geo_seg.first_look": 2,
    "geo_seg.dataset_checks": 1,
    "geo_seg.idle_checks": 1,
    "geo_seg.target_checks": 1,
    "geo_seg.yaml_files": 1,
    "geo_seg.dataset_config": 1,
    "geo_seg.inference_config": 1,
    "geo_seg.inference_checks": 1,
    "geo_seg.keys": 1,
    "geo_seg.lasting": 1,
    "geo_seg.defaults": 1,
    "geo_seg.rerun": 1,
    "geo_seg.ranks": 1,
    "geo_seg.sharing": 1,
    "geo_seg.identity": 1,
    "geo_seg.whole": 1,
    "geo_seg.intervals": 1,
    "geo_seg.ious": 1,
    "geo_seg.lock": 1,
    "geo_seg.orphans": 1,
    "geo_seg.traces": 1,
    "geo_seg.tiling": 1,
    "geo_seg.raster": 1,
    "geo_seg.containers": 1,
    "geo_seg.validity": 1,
    "geo_seg.writing": 1,
    "geo_seg.mosaic": 1,
    "geo_seg.overviews": 1,
    "geo_seg.areas": 1,
    "geo_seg.bands": 1,
    "geo_seg.legends": 1,
    "geo_seg.terminal": 1,
    "geo_seg.models": 2,
    "geo_seg.metrics": 2,
    "geo_seg.boundary": 2,
    "geo_seg.calibration": 2,
    "geo_seg.checkpoint": 2,
    "geo_seg.report": 2,
    "geo_seg.data": 2,
    "geo_seg.doctor": 2,
    "geo_seg.prediction": 3,
    "geo_seg.training": 4,
    "geo_seg.sweeps": 4,
    "geo_seg.inference": 4,
}
FILES = sorted(
    p
    for folder in ("geo_seg", "losses")
    for p in (REPOSITORY / folder).rglob("*.py")
    if p.parts[-2:] != ("geo_seg", "__init__.py")
)
FOREIGN_TO_LOSSES = {"geo_seg", "hydra", "omegaconf", "pytorch_lightning", "rasterio", "numpy"}
HEAVY = {"torch", "pytorch_lightning", "segmentation_models_pytorch", "losses"}


def module_of(path: object) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")  # type: ignore[attr-defined]


def imports(path: object) -> set[str]:
    tree = ast.parse(path.read_text())  # type: ignore[attr-defined]
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def floor(module: str) -> int | None:
    parts = module.split(".")
    return next((FLOORS[".".join(parts[:n])] for n in (2, 1) if ".".join(parts[:n]) in FLOORS), None)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path: object) -> None:
    own = module_of(path)
    level = floor(own)
    assert level is not None, f"{own} has no floor"
    for imported in imports(path):
        below = floor(imported)
        if below is not None and imported.split(".")[:2] != own.split(".")[:2]:
            assert below <= level, f"{own} imports {imported} from above"
            assert level < 3 or below < level, f"{own} and {imported} share a floor and must not meet"


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p).startswith("losses")], ids=module_of)
def test_losses_know_only_torch_and_smp(path: object) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & FOREIGN_TO_LOSSES


@pytest.mark.parametrize(
    "name",
    [
        *(
            "errors",
            "config",
            "dataset_config",
            "inference_config",
            "signatures",
            "answers",
            "keys",
            "checks",
            "checkpoint_checks",
            "split_checks",
        ),
        *("inference_checks", "rerun", "ranks", "identity", "whole", "lock", "orphans", "traces"),
        *(
            "checkpoint_files",
            "class_rows",
            "first_look",
            "dataset_checks",
            "idle_checks",
            "target_checks",
            "yaml_files",
        ),
    ],
)
def test_what_answers_typos_never_imports_torch(name: str) -> None:
    assert not {i.split(".")[0] for i in imports(REPOSITORY / "geo_seg" / f"{name}.py")} & HEAVY


def test_no_file_is_a_drawer_for_everything() -> None:
    assert not {p.stem for p in FILES} & {"utils", "helpers", "common", "base", "misc"}
    assert {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 300} == {}


@pytest.mark.parametrize("name", ["train.py", "inference.py"])
def test_entry_points_are_short(name: str) -> None:
    assert len((REPOSITORY / name).read_text().splitlines()) <= 30


@pytest.mark.fault("resume", "durations were those of a clock that can go back")
@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_durations_are_taken_from_a_clock_that_cannot_go_back(path: object) -> None:
    tree = ast.parse(path.read_text())  # type: ignore[attr-defined]
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}
