"""Rooms and floors: a room imports from lower floors only, and no room is too large to look over."""

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FLOORS = {
    "losses": 0,
    "geo_seg.errors": 0,
    "geo_seg.tiling": 1,
    "geo_seg.runtime": 1,
    "geo_seg.config": 2,
    "geo_seg.raster": 2,
    "geo_seg.cli": 3,
    "geo_seg.run_folder": 3,
    "geo_seg.models": 3,
    "geo_seg.metrics": 3,
    "geo_seg.vectorize": 3,
    "geo_seg.checkpoints": 4,
    "geo_seg.data": 5,
    "geo_seg.begin": 6,
    "geo_seg.report": 6,
    "geo_seg.prediction": 6,
    "geo_seg.doctor": 7,
    "geo_seg.training": 7,
    "geo_seg.inference": 7,
    "geo_seg.sweeps": 8,
    "geo_seg.modes": 9,
    "geo_seg.commands": 10,
    "geo_seg.__main__": 11,
}
"""Rooms from the ground up; the package itself (`geo_seg/__init__.py`) imports nothing of them."""

FILES = sorted(p for folder in ("geo_seg", "losses") for p in (REPOSITORY / folder).rglob("*.py"))
TORCH_FREE = ("begin", "config", "raster", "runtime", "cli", "run_folder", "errors", "tiling", "vectorize")
HEAVY = {"torch", "pytorch_lightning", "segmentation_models_pytorch", "losses", "torchmetrics", "torchvision"}
OF_LOSSES = {"torch", "segmentation_models_pytorch", "losses"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "losses" else ".".join(parts[:2])


def imports(path: Path) -> set[str]:
    """Every module that a file imports, `from a import b` as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_rooms(path: Path) -> set[str]:
    return {room_of(name) for name in imports(path) if name.split(".")[0] in {"geo_seg", "losses"}}


def test_every_module_is_in_a_room_and_every_room_is_there() -> None:
    rooms = {room_of(module_of(path)) for path in FILES} - {"geo_seg"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_room_imports_from_lower_floors_only(path: Path) -> None:
    room = room_of(module_of(path))
    for other in imported_rooms(path) - {room, "geo_seg.__version__", "geo_seg"}:
        assert other in FLOORS, f"{room} imports {other}, which is no room"
        assert FLOORS[other] < FLOORS[room], f"{room} imports {other}, which isn't on a lower floor"


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p).startswith("losses")], ids=module_of)
def test_losses_know_only_torch_and_smp(path: Path) -> None:
    foreign = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - OF_LOSSES
    assert not foreign


@pytest.mark.parametrize("name", TORCH_FREE)
def test_rooms_that_answer_typos_never_import_torch(name: str) -> None:
    room = REPOSITORY / "geo_seg" / name
    for path in sorted(room.rglob("*.py")) if room.is_dir() else [room.with_suffix(".py")]:
        assert not {i.split(".")[0] for i in imports(path)} & HEAVY, path


def test_rooms_can_be_looked_over() -> None:
    top = REPOSITORY / "geo_seg"
    assert len([p for p in top.glob("*.py") if p.stem != "__init__"]) <= 7
    assert len([p for p in top.iterdir() if (p / "__init__.py").exists()]) <= 16
    sizes = {p.parent: sum(f.stem != "__init__" for f in p.parent.glob("*.py")) for p in FILES}
    assert {folder: n for folder, n in sizes.items() if n > 15} == {}
    assert {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 300} == {}


def test_no_file_is_a_drawer_for_everything() -> None:
    assert not {p.stem for p in FILES} & {"utils", "helpers", "common", "base", "misc"}


def test_losses_shows_losses() -> None:
    others = {"__init__", "registry", "task", "class_weights", "errors"}
    assert {p.stem for p in (REPOSITORY / "losses").glob("*.py") if not p.stem.endswith("_loss")} == others


@pytest.mark.parametrize("name", ["train.py", "inference.py"])
def test_entry_points_are_short(name: str) -> None:
    assert len((REPOSITORY / name).read_text().splitlines()) <= 30


@pytest.mark.fault("resume", "durations were those of a clock that can go back")
@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_durations_are_taken_from_a_clock_that_cannot_go_back(path: Path) -> None:
    calls = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    }
    assert not calls & {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}


# [Any] says that the type of number doesn't matter
ELEMENTS = {"NDArray", "dtype", "integer", "signedinteger", "floating"}
MAPPINGS = {"dict", "Mapping"}  # [str, Any] is JSON, a configuration, or the state of a checkpoint


def bare_any(annotation: ast.AST) -> Iterator[ast.Name]:
    """Every `Any` in an annotation that isn't an element type of NumPy, nor a value by name."""
    if isinstance(annotation, ast.Name) and annotation.id == "Any":
        yield annotation
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        assert not re.search(r"\bAny\b", annotation.value), "an annotation in quotes"
    if isinstance(annotation, ast.Subscript):
        name = ast.unparse(annotation.value).rpartition(".")[2]
        if name in ELEMENTS or (name in MAPPINGS and ast.unparse(annotation).endswith("[str, Any]")):
            return
    for part in ast.iter_child_nodes(annotation):
        yield from bare_any(part)


def annotations(tree: ast.AST) -> Iterator[ast.AST]:
    """Every annotation, and every value that may be the alias of a type."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns:
            yield node.returns
        elif isinstance(node, ast.Assign):
            yield node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"cast", "TypeVar"}:
            yield from node.args


def described_fields(tree: ast.AST) -> set[int]:
    """Lines of the fields that the docstring of their class describes."""
    return {
        line.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and re.search(rf"\b{ast.unparse(line.target)}\b.*: ", ast.get_docstring(node) or "")
    }


def reasons(path: Path) -> set[int]:
    """Lines with a comment in words."""
    with path.open("rb") as file:
        comments = [t for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT]
    return {t.start[0] for t in comments if re.sub(r"# (type: ignore|noqa)\S*", "", t.string).strip()}


def test_what_may_be_anything_is_rare_and_has_a_reason() -> None:
    found = []
    for path in (p for p in FILES if module_of(p).startswith("geo_seg")):
        tree = ast.parse(path.read_text())
        explained = reasons(path) | described_fields(tree)
        found += [
            (f"{module_of(path)} line {name.lineno}", name.lineno in explained)
            for annotation in annotations(tree)
            for name in bare_any(annotation)
        ]
    assert [place for place, has_reason in found if not has_reason] == []
    assert len(found) < 30
