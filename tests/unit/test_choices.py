"""What is "auto" is settled by the memory that there is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from geo_seg.inference import choices
from geo_seg.inference.engines import sharers
from geo_seg.inference.reading import Source
from geo_seg.inference.scale import Scale
from geo_seg.inference_config import InferenceConfig
from geo_seg.raster import inspect
from tests.conftest import write_raster
from tests.end_to_end.test_inference import draw


def config(**options: Any) -> InferenceConfig:
    return InferenceConfig(checkpoint="x", input="x", output="x", precision="fp32", **options)


@pytest.mark.parametrize(
    ("processes", "scale", "window"),
    [(1, Scale(), 1024), (4, Scale(), 512), (1, Scale(96, 96, 32), 512), (1, Scale(8, 8, 32), 1024)],
)
def test_windows_fit_the_share_of_a_process_and_the_rows_of_a_finer_raster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, scale: Scale, window: int
) -> None:
    monkeypatch.setattr(choices, "free_memory", lambda _: 2 * 1000 * 1024**2)  # half of it is for windows
    monkeypatch.setattr(choices, "bytes_per_pixel", lambda _: 1000.0)
    predictor: Any = SimpleNamespace(device=torch.device("cpu"))
    source = Source(inspect(write_raster(tmp_path / "a.tif", draw((1, 40, 40)))), (1,), None, False, scale)
    chooser = choices.Chooser(config(), predictor, 64, print, processes)
    assert chooser.choose(source).window == window


def test_processes_of_a_run_on_a_machine_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert sharers(config()) == 1
    assert sharers(config(engine="torchrun")) == 3
    assert sharers(config(engine="ray", workers=5)) == 5
