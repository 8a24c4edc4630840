"""Tries the oldest and the newest version of each dependency that pyproject.toml allows, one at a time.

python benchmarks/bounds.py [--only rich pillow] [--oldest]

Each is installed from the index into an environment of its own, which borrows everything else from the one
that this script runs in, and a few tests run there: imports, losses, one training, maps. Needs the network.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
_TESTS = (
    "tests/config/test_import_effects.py",
    "tests/contract/test_losses_values.py",
    "tests/end_to_end/test_training.py::test_the_run_folder_holds_all_that_the_run_was",
    "tests/end_to_end/test_inference.py::test_the_map_lies_exactly_on_the_raster_and_says_what_the_classes_are",
    "tests/end_to_end/test_inference.py::test_polygons_of_the_map_come_with_its_class_names_areas_and_confidence",
)
_REQUIREMENT = re.compile(r"([\w-]+)>=([\d.]+)(.*)")


def versions(requirement: str) -> dict[str, str]:
    """Return what pip is asked for: the release at the lower bound, and the newest one within the bounds."""
    match = _REQUIREMENT.fullmatch(requirement)
    assert match, requirement
    name, oldest, _ = match.groups()
    return {"oldest": f"{name}=={oldest}", "newest": requirement}


def attempt(wanted: str, folder: Path) -> str:
    """Install a version into a new environment, run the tests there, and return how they ended."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    [site] = folder.rglob("site-packages")
    torch = find_spec("torch")
    assert torch and torch.origin
    (site / "borrowed.pth").write_text(f"{Path(torch.origin).parents[1]}\n{REPOSITORY}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    steps = (
        [*pip, "install", "--quiet", "--upgrade", wanted],
        [
            str(python),
            "-m",
            "pytest",
            "-q",
            "-x",
            "-W",
            "default",
            "-o",
            "addopts=",
            "-m",
            "not slow",
            *_TESTS,
        ],
    )
    done = subprocess.CompletedProcess("", 0)
    for step in steps:
        done = subprocess.run(step, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            break
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E  ", "ERROR", "FAILED"))]
    return "ok" if done.returncode == 0 else (errors or lines or ["failed"])[-1]


def main() -> None:
    """Try the versions, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="names of dependencies, instead of all")
    parser.add_argument("--oldest", action="store_true", help="leaves the newest versions out")
    options = parser.parse_args()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    failed = 0
    for requirement in project["dependencies"]:
        for which, wanted in versions(requirement).items():
            name = wanted.partition(">")[0].partition("=")[0]
            if (options.only and name not in options.only) or (options.oldest and which == "newest"):
                continue
            with tempfile.TemporaryDirectory() as folder:
                result = attempt(wanted, Path(folder))
            failed += result != "ok"
            print(f"{which}  {wanted:40} {result}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
