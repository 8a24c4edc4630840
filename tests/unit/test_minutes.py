"""The option --minutes of the tests, by which CI ends within its time."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(("minutes", "words"), [("0", "2 tests were not begun"), ("60", "2 passed")])
def test_what_has_not_begun_in_time_is_skipped_and_counted(minutes: str, words: str) -> None:
    tests = "tests/test_architecture.py::test_entry_points_are_short"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            f"--minutes={minutes}",
            tests,
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert words in done.stdout
