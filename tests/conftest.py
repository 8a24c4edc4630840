"""A small drawn data set for all tests: no network, nothing but what is made here."""

# ruff: noqa: E402 - the process is set up before torch is imported
import os

from geo_seg.runtime.process import setup_process

setup_process()
os.environ.setdefault("CI", "true")

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.class_table import build_class_table
from geo_seg.data.index import index_scenes
from geo_seg.data.scene_reader import WindowArrays
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.windows.loader import WindowReader
from geo_seg.tiling import Window

_CACHE = tempfile.TemporaryDirectory()  # indices and decoded copies; gone when the tests end
os.environ["XDG_CACHE_HOME"] = _CACHE.name
REPOSITORY = Path(__file__).parents[1]


_STARTED = time.monotonic()
_LATE = "not begun within --minutes"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let CI end within its time: what has not begun after so many minutes is skipped, and counted."""
    parser.addoption("--minutes", type=float, help="skip tests that have not begun after so many minutes")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that begins too late."""
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - _STARTED > 60 * minutes:
        pytest.skip(_LATE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the tests that were skipped because they began too late."""
    late = sum(_LATE in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if late:
        terminalreporter.write_line(f"{late} tests were {_LATE}: run them with make test-slow", yellow=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Carries what a test marked `fault` holds into its report, for benchmarks/faults.py."""
    for item in items:
        if mark := item.get_closest_marker("fault"):
            item.user_properties.append(("fault", mark.args))


def write_raster(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """Writes (bands, H, W) or (H, W) pixels as a GeoTIFF."""
    bands = pixels[None] if pixels.ndim == 2 else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    fixed = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 2, 2)}
    with rasterio.open(path, "w", **{**fixed, "dtype": bands.dtype, **place, **profile}) as target:
        target.write(bands)
    return path


def draw_scene(seed: int, height: int = 96, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that the brightness of the bands tells apart, with a strip of nodata."""
    draw = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 :] = 1
    mask[:, width // 2 :] = np.where(draw.random() < 2, 2, mask[:, width // 2 :])
    levels = np.array([[400, 1500, 3000], [3000, 800, 1500]], np.int32)
    image = levels[:, mask] + draw.normal(0, 60, (2, height, width)).astype(np.int32)
    image = image.astype(np.uint16)
    image[:, :, :7] = 0
    return image, mask


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes: images/s0.tif ... and masks/s0.tif ..."""
    root = tmp_path_factory.mktemp("small")
    for seed in range(6):
        image, mask = draw_scene(seed)
        place = from_origin(500000 + 1000 * seed, 5000000, 2, 2)  # ground of its own for every scene
        write_raster(root / "images" / f"s{seed}.tif", image, nodata=0, transform=place)
        write_raster(root / "masks" / f"s{seed}.tif", mask, transform=place)
    return root


@pytest.fixture
def small(small_root: Path) -> DatasetConfig:
    """The configuration of the small data set."""
    return DatasetConfig(
        name="small",
        root=str(small_root),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["low", "middle", "high"],
        split=SplitConfig(by="pattern", val="images/s4.tif", test="images/s5.tif"),
        window=32,
        batch_size=4,
    )


def read_window(config: DatasetConfig, scene: Scene, window: Window) -> WindowArrays:
    """Image, labels and valid pixels of a window, as a run would read them."""
    table = build_class_table(config)
    return WindowReader([scene], index_scenes([scene], table, config), table, config).read((0, window))


def small_overrides(root: Path) -> list[str]:
    """The same data set on the command line, with a short training."""
    return [
        "dataset=own",
        f"dataset.root={root}",
        "dataset.classes=[low,middle,high]",
        "dataset.split.by=pattern",
        "dataset.split.val=images/s4.tif",
        "dataset.split.test=images/s5.tif",
        "dataset.window=32",
        "dataset.batch_size=4",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
    ]


@contextmanager
def ended_by_keeping_memory(module: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What runs in it must come to a module's tune_malloc, and ends there."""

    class KeptError(Exception):
        pass

    def keep() -> None:
        raise KeptError

    monkeypatch.setattr(module, "tune_malloc", keep)
    with pytest.raises(KeptError):
        yield


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an entry point as a user would, from a folder that is not the repository's."""

    def start(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(REPOSITORY / script), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    return start
