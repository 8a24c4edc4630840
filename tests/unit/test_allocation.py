"""Memory that is freed is at hand for what is asked for next."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

USE_MEMORY = """
import resource, sys
import numpy as np
from geo_seg.runtime.memory import tune_malloc
if sys.argv[1] == "keep":
    tune_malloc()
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
