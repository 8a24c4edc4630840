"""Importing geo_seg changes nothing in the process; entry points and workers set it up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geo_seg.runtime.process import setup_process
from tests.conftest import REPOSITORY
from tests.test_architecture import FILES, imports, module_of

OPTIONS = ("OMP_WAIT_POLICY", "GDAL_CACHEMAX", "GDAL_DISABLE_READDIR_ON_OPEN", "GDAL_HTTP_MAX_RETRY")
IMPORT_ALL = """
import importlib, json, logging, os, sys, warnings
from contextlib import suppress
from hydra.core.config_store import ConfigStore

foreign, modules = json.loads(sys.stdin.read())
for name in foreign:  # libraries change the process as they like
    for end in range(1, name.count(".") + 2):
        with suppress(ImportError):
            importlib.import_module(".".join(name.split(".")[:end]))

def state():
    levels = {name: logging.getLogger(name).level for name in [*logging.root.manager.loggerDict]}
    return {
        "environment": dict(os.environ),
        "levels": {name: level for name, level in levels.items() if level} | {"": logging.root.level},
        "filters": list(map(str, warnings.filters)),
        "store": [sorted(ConfigStore.instance().repo), sorted(vars(ConfigStore))],
    }

before = state()
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # an extra that isn't installed
        assert error.name in foreign, f"{name} needs {error.name}"
    for key, value in state().items():
        assert value == before[key], f"{name} changes {key}: {value}, before {before[key]}"
"""


def run_fresh(code: str, given: object = None) -> str:
    """Output of a fresh interpreter that has none of our settings."""
    environment = {name: value for name, value in os.environ.items() if name not in OPTIONS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given),
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_module_changes_the_process_that_imports_it() -> None:
    modules = sorted(module_of(path) for path in FILES)
    foreign = {name for path in FILES for name in imports(path)}
    foreign = {name for name in foreign if name.split(".")[0] not in {"geo_seg", "losses"}}
    run_fresh(IMPORT_ALL, [sorted(foreign), modules])


def test_what_hydra_imports_before_a_job_imports_no_numpy() -> None:
    code = "import sys, hydra_plugins.geo_seg_sweeps, geo_seg.cli; print({'torch', 'numpy'} & {*sys.modules})"
    assert run_fresh(code) == "set()\n"


@pytest.mark.parametrize("script", ["train", "inference"])
def test_a_job_is_set_up_before_torch_is_imported(script: str, tmp_path: Path) -> None:
    code = (
        f"import os, sys, {script} as script; from geo_seg.cli import report_errors\n"
        f"assert 'torch' not in sys.modules\n"
        f"with report_errors(): print(*map(os.environ.get, {OPTIONS}))"
    )
    assert run_fresh(code) == "passive 512 TRUE 4\n"


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPTIONS:
        monkeypatch.setenv(name, "7")
    setup_process()
    assert {os.environ[name] for name in OPTIONS} == {"7"}
