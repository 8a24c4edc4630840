"""Memory that is freed is at hand for what is asked for next."""

import os
import platform
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from geo_seg.inference import memory
from geo_seg.training import run
from tests.conftest import REPOSITORY

USE_MEMORY = """
import resource, sys
import numpy as np
from geo_seg.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(3):
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)
"""


def faults(how: str, folder: Path) -> int:
    """Pages that the system provides for the third of three arrays of 64 MB, each of which is let go."""
    code = folder / "use_memory.py"
    code.write_text(USE_MEMORY)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run([sys.executable, code, how], env=environment, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries stay as they are")
def test_the_system_provides_memory_once_and_not_with_every_array(tmp_path: Path) -> None:
    assert faults("leave", tmp_path) > 10_000
    assert faults("keep", tmp_path) < 100


class KeptError(Exception):
    """Instead of keeping it."""


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises where freed memory is to be kept."""

    def keep() -> None:
        raise KeptError

    for module in (memory, run):
        monkeypatch.setattr(module, "keep_freed_memory", keep)


@pytest.mark.usefixtures("refused")
def test_training_keeps_it(tmp_path: Path) -> None:
    nothing: Any = None
    with pytest.raises(KeptError):
        run.run(nothing, tmp_path)


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("width", "device", "keeps"), [(40, "cpu", True), (2, "cpu", False), (40, "meta", False)]
)
def test_maps_keep_it_where_layers_take_more_than_all_else(width: int, device: str, keeps: bool) -> None:
    predictor: Any = SimpleNamespace(bands=3, votes=1, task=SimpleNamespace(num_classes=2))
    predictor.models = [torch.nn.Conv2d(3, width, 1, device=device)]
    predictor.device = torch.device(device)
    with pytest.raises(KeptError) if keeps else nullcontext():
        memory.keep_what_layers_free(predictor)
