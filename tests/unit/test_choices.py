"""What is "auto" is settled by the memory that there is."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from geo_seg.config.inference import InferenceConfig
from geo_seg.inference.engines.local import processes_per_host
from geo_seg.prediction import planner
from geo_seg.prediction.memory import PeakMemory, bytes_per_pixel
from geo_seg.prediction.resample import ResolutionScale
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.raster.reader import read_info
from tests.conftest import write_raster
from tests.end_to_end.test_inference import draw


def config(**options: Any) -> InferenceConfig:
    return InferenceConfig(checkpoint="x", input="x", output="x", precision="fp32", **options)


@pytest.mark.parametrize(
    ("processes", "scale", "window"),
    [
        (1, ResolutionScale(), 1024),
        (4, ResolutionScale(), 512),
        (1, ResolutionScale(96, 96, 32), 512),
        (1, ResolutionScale(8, 8, 32), 1024),
    ],
)
def test_windows_fit_the_share_of_a_process_and_the_rows_of_a_finer_raster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, scale: ResolutionScale, window: int
) -> None:
    monkeypatch.setattr(planner, "free_memory", lambda _: 2 * 1000 * 1024**2)  # half of it is for windows
    monkeypatch.setattr(planner, "bytes_per_pixel", lambda _: 1000.0)
    predictor: Any = SimpleNamespace(device=torch.device("cpu"))
    source = RasterInput(
        read_info(write_raster(tmp_path / "a.tif", draw((1, 40, 40)))), (1,), None, False, scale
    )
    chooser = planner.Planner(config(), predictor, 64, print, processes)
    assert chooser.plan(source).window == window


@pytest.mark.parametrize(
    ("window", "overlap", "margin"), [("auto", 64, 80), (1280, 64, 64), (1024, 64, 32), (512, 0, 32)]
)
def test_large_windows_share_more_with_their_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int | str, overlap: int, margin: int
) -> None:
    chosen, _ = wide(tmp_path, monkeypatch, window=window, overlap=overlap)
    assert chosen.margin == margin
    assert wide(tmp_path, monkeypatch, window=window, overlap=overlap, margin=48)[0].margin == 48


def test_wide_rasters_are_mapped_in_panels_of_like_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, parts = wide(tmp_path, monkeypatch)
    panels = {part.area.col: part.area.width for part in parts}
    assert sum(panels.values()) == WIDE
    assert len(panels) == 4
    assert max(panels.values()) <= planner._MAX_PANEL_COLS + 2 * chosen.window


WIDE = 20_000


def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Any]:
    """What is chosen for a raster of that width, and its parts."""
    monkeypatch.setattr(planner, "free_memory", lambda _: 100e9)
    monkeypatch.setattr(planner, "bytes_per_pixel", lambda _: 1000.0)
    predictor: Any = SimpleNamespace(device=torch.device("cpu"))
    info = replace(read_info(write_raster(tmp_path / "a.tif", draw((1, 40, 40)))), width=WIDE, height=3000)
    source = RasterInput(info, (1,), None, False, ResolutionScale())
    chosen = planner.Planner(config(**options), predictor, 64, print, 1).plan(source)
    return chosen, planner.split_into_parts(source, chosen)


def test_processes_of_a_run_on_a_machine_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert processes_per_host(config()) == 1
    assert processes_per_host(config(engine="torchrun")) == 3
    assert processes_per_host(config(engine="ray", workers=5)) == 5


def test_what_operations_hold_counts_for_as_long_as_somebody_holds_it() -> None:
    with PeakMemory() as held:
        first = torch.zeros(1000)
        kept = [first + 1, first.view(10, 100), first.add_(1)]
        assert held.peak_bytes == 2 * 4000
        for _ in range(5):
            first * 2
        assert held.peak_bytes == 3 * 4000
        del kept
        first * 2
    assert held.peak_bytes == 3 * 4000
    torch.zeros(9000)
    assert held.peak_bytes == 3 * 4000


def test_the_memory_of_a_model_is_that_of_its_largest_step() -> None:
    class Wide(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                wide = image.expand(-1, 50, -1, -1).contiguous()  # 200 bytes per pixel, let go at once
                image = wide[:, :1] + 0
                del wide
            return image

    ensemble: Any = SimpleNamespace(device=torch.device("cpu"), bands=1, models=[Wide()], n_passes=1)
    ensemble.task = SimpleNamespace(num_classes=2)
    assert 200 + 4 < bytes_per_pixel(ensemble) - 4 * (3 + 6) < 2 * (200 + 8)
