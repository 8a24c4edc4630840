"""Hydra: schemas, the run folder, and commands as a shell and Hydra take them. No torch in here."""

import re
import shlex
import sys
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import geo_seg
from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import TrainConfig

_SCRIPTS = Path(geo_seg.__file__).parents[1]


def shell_command(script: str, **values: object) -> str:
    """The line that starts a script of ours from the working folder.

    Args:
        script: its name.
        values: by key; what has other signs than names of files usually have is quoted.
    """
    path = _SCRIPTS / script
    return portable_command(
        script if path.parent == Path.cwd() else shlex.quote(str(path)),
        **values,
    )


def portable_command(script: str, **values: object) -> str:
    """The same line for a file that others may read: without the folder of the script.

    Args:
        script: its name.
        values: see command; their paths should be relative.
    """
    return " ".join(["python", script, *(quote_override(key, str(value)) for key, value in values.items())])


def this_command() -> str:
    """Return the line that started this process."""
    return shlex.join(["python", *sys.argv])


def quote_override(key: str, value: str) -> str:
    """Return `key=value` as a shell and Hydra take it."""
    if re.fullmatch(r"[\w./+%-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = re.sub(r'(\\+)("|$)', r"\1\1\2", value).replace('"', r"\"")  # as Hydra's quoted values are
    return shlex.quote(f'{key}="{escaped}"')


def resolve_run_dir(resume: str | None, rerun: str | None, checkpoint: str | None, fresh: str) -> str:
    """Where a run goes.

    Args:
        resume: the folder of a run that goes on there.
        rerun: the folder of a run that is done again, beside it.
        checkpoint: a run folder or checkpoint file that is tested; the test goes beside the run.
        fresh: where other runs go; its name begins with the time.
    """
    if resume and resume != "auto":
        return resume
    time = fresh.rpartition("/")[2][:19]
    if rerun:
        return f"{rerun.rstrip('/')}_again_{time}"
    if checkpoint:
        return f"{run_dir_of(checkpoint)}_test_{time}"
    return fresh


def run_dir_of(checkpoint: str) -> Path:
    """The folder that a checkpoint belongs to; the file without its suffix if it lies in none."""
    path = Path(checkpoint)
    if path.suffix != ".ckpt":
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else path.with_suffix("")


def register_schemas() -> None:
    """Makes the schemas known to Hydra, and resolve_run_dir to the YAML files."""
    OmegaConf.register_new_resolver("resolve_run_dir", resolve_run_dir, replace=True)
    store = ConfigStore.instance()
    # there is one store, and it hands out copies; Hydra copies all of it for each group that --help lists
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="inference_schema", node=InferenceConfig)
