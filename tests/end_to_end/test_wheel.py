"""The wheel: what is in it, and that it works from an empty folder, far from a clone."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
PACKED = ("geo_seg", "losses", "hydra_plugins", "config")
BESIDE = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
SHORT = (
    *("dataset.window=64", "dataset.batch_size=4", "model.encoder=resnet18", "scheduler=constant"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true"),
    *("trainer.max_epochs=1", "trainer.limit_train_batches=2"),
)


def ran(words: list[str], **options: object) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr


def files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution of a copy of the tree, without the network."""
    for package in ("pip", "setuptools"):  # not by find_spec: that replaces distutils, with a warning
        if not [*distributions(name=package)]:
            pytest.skip(f"{package} isn't installed, which builds the wheel: pip install 'geo-seg[dev]'")
    source = tmp_path_factory.mktemp("source")
    for name in (*PACKED, "tests", "benchmarks"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(REPOSITORY / name, source / name)
    built = tmp_path_factory.mktemp("built")
    backend = f"import setuptools.build_meta as backend; backend.build_sdist({str(built)!r})"
    ran([sys.executable, "-W", "ignore", "-c", backend], cwd=source)
    [packed] = built.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index", "--no-deps"]
    ran([*pip, "--no-build-isolation", "--wheel-dir", str(built), str(packed)])
    [file] = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that holds the wheel, and borrows the libraries."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(programs / "python")]
    ran([*pip, "install", "--no-index", "--no-deps", str(wheel)])
    [package] = folder.rglob("geo_seg/__main__.py")
    libraries = dict.fromkeys(str(Path(find_spec(name).origin).parents[1]) for name in ("torch", "hydra"))  # type: ignore[union-attr,arg-type]
    (package.parents[1] / "borrowed.pth").write_text("\n".join(libraries))
    return programs


@pytest.fixture(scope="module")
def command(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs a program of the new environment in a folder that was empty before the first call."""
    folder = tmp_path_factory.mktemp("empty")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["PATH"] = os.pathsep.join([str(environment), variables["PATH"]])

    def start(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(environment / program), *words],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    return start


@pytest.fixture(scope="module")
def demo(command: Command) -> subprocess.CompletedProcess[str]:
    """A short training on the demo data."""
    return command("geo_seg", "train", *SHORT, "hydra.run.dir=run")


def test_the_wheel_holds_the_packages_and_the_yaml_files_and_nothing_else(wheel: Path) -> None:
    expected = {f"geo_seg/yaml/{path.as_posix()}" for path in files_below(REPOSITORY / "config")}
    for name in PACKED[:3]:
        expected |= {f"{name}/{path.as_posix()}" for path in files_below(REPOSITORY / name)}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in sorted(expected & held):
            place = name.replace("geo_seg/yaml/", "config/")
            assert archive.read(name) == (REPOSITORY / place).read_bytes(), name
    assert held == expected


def test_help_and_a_typo_are_answered_from_an_empty_folder(command: Command, environment: Path) -> None:
    place = command("python", "-c", "import geo_seg, losses; print(geo_seg.__file__, losses.__file__)").stdout
    assert place.count(str(environment.parent)) == 2 and str(REPOSITORY) not in place
    shown = command("geo_seg", "train", "--help")
    assert shown.returncode == 0
    assert "\nloss: boundary, compound, " in shown.stdout
    assert "\ngeo_seg train dataset=demo loss=focal" in shown.stdout
    typo = command("geo_seg", "train", "loss=focl")
    assert (typo.returncode, typo.stderr.count("\n")) == (2, 1)
    assert "did you mean 'focal'?" in typo.stderr


def test_the_demo_is_trained_and_says_how_to_go_on(demo: subprocess.CompletedProcess[str]) -> None:
    assert (demo.returncode, demo.stderr) == (0, "")
    assert "go on with  geo_seg predict checkpoint=" in demo.stdout
    assert "your data   geo_seg train dataset=own dataset.root=" in demo.stdout


@pytest.mark.usefixtures("demo")
def test_a_map_is_made_and_the_run_is_tested(command: Command) -> None:
    mapped = command(
        *("geo_seg", "predict", "checkpoint=run", "input=data/demo/images/test_1.tif", "output=maps"),
        *("accelerator=cpu", "precision=fp32", "window=256"),
    )
    assert (mapped.returncode, mapped.stderr) == (0, "")
    tested = command("geo_seg", "test", "checkpoint=run", "split=test", "trainer.accelerator=cpu")
    assert (tested.returncode, tested.stderr) == (0, "")


@pytest.mark.usefixtures("demo")
def test_a_data_set_is_checked(command: Command) -> None:
    checked = command("geo_seg", "check", "hydra.run.dir=checked")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "check.html" in checked.stdout


@pytest.mark.usefixtures("demo")
def test_a_finished_run_is_resumed_for_longer(command: Command) -> None:
    assert "this run is finished" in command("geo_seg", "train", "resume=run").stdout
    resumed = command("geo_seg", "train", "resume=run", "trainer.max_epochs=2")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert "geo_seg predict checkpoint=" in resumed.stdout


@pytest.mark.parametrize(
    ("launcher", "seed"), [("process", 0), ("joblib", 1), ("submitit_local", 2)]
)  # a run with the seed of another sweep would be taken from there
@pytest.mark.usefixtures("demo")
def test_a_sweep_of_two_runs_with_its_leaderboard(command: Command, launcher: str, seed: int) -> None:
    if launcher != "process":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = ["loss=dice,focal", f"seed={seed}", *SHORT, f"launcher={launcher}"]
    words.append(f"hydra.sweep.dir=sweeps/{launcher}")
    swept = command("geo_seg", "train", "-m", *words)
    assert swept.returncode == 0, swept.stderr
    shown = command("geo_seg", "leaderboard", f"sweep=sweeps/{launcher}")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "dice" in shown.stdout and "focal" in shown.stdout


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.usefixtures("demo")
def test_two_processes_train_and_map_together(command: Command) -> None:
    pair = command("geo_seg", "train", *SHORT, "trainer=ddp", "trainer.devices=2")
    assert pair.returncode == 0, pair.stderr
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "geo_seg")
    words = (
        "predict",
        "checkpoint=run",
        "input=data/demo/images/test_1.tif",
        "output=shared",
        "engine=torchrun",
    )
    mapped = command("python", *torchrun, *words, "accelerator=cpu", "precision=fp32", "window=256")
    assert mapped.returncode == 0, mapped.stderr
