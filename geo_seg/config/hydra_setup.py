"""Hydra: registration of schemas, the run folder, and quoting of commands. No torch in here."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import TrainConfig
from geo_seg.runtime.program import typed_words


def shell_command(command: str, **values: object) -> str:
    """Return the line that starts a command of geo_seg in a shell, from the working folder.

    Args:
        command: "train" or "predict".
        values: by key; quoted where a shell or Hydra needs it.
    """
    return _command(typed_words(command, located=True), values)


def portable_command(command: str, **values: object) -> str:
    """Return the line without the folder of a script, for files that may be published.

    Args:
        command: see shell_command.
        values: see shell_command; paths should be relative.
    """
    return _command(typed_words(command), values)


def _command(words: list[str], values: Mapping[str, object]) -> str:
    return " ".join([shlex.join(words), *(quote_override(key, str(value)) for key, value in values.items())])


def quote_override(key: str, value: str) -> str:
    """Return `key=value`, quoted for a shell and for Hydra."""
    if re.fullmatch(r"[\w./+%-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = re.sub(r'(\\+)("|$)', r"\1\1\2", value).replace('"', r"\"")  # as Hydra quotes
    return shlex.quote(f'{key}="{escaped}"')


def resolve_run_dir(resume: str | None, rerun: str | None, checkpoint: str | None, new: str) -> str:
    """Return the folder of a run.

    Args:
        resume: folder of a run that is resumed there.
        rerun: folder of a run that is repeated; the new folder lies beside it.
        checkpoint: run folder or checkpoint file that is tested; the new folder lies beside the run.
        new: folder of all other runs; its name begins with the time.
    """
    if resume and resume != "auto":
        return resume
    time = new.rpartition("/")[2][:19]
    if rerun:
        return f"{rerun.rstrip('/')}_again_{time}"
    if checkpoint:
        return f"{run_dir_of(checkpoint)}_test_{time}"
    return new


def run_dir_of(checkpoint: str) -> Path:
    """Return the run folder of a checkpoint; the file without its suffix if it is in none."""
    path = Path(checkpoint)
    if path.suffix != ".ckpt":
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else path.with_suffix("")


def register_schemas() -> None:
    """Register the schemas with Hydra, and the resolvers of `config/` with OmegaConf."""
    OmegaConf.register_new_resolver("resolve_run_dir", resolve_run_dir, replace=True)
    OmegaConf.register_new_resolver("command", portable_command, replace=True)
    store = ConfigStore.instance()
    # there is one store, and it hands out copies; Hydra copies all of it for each group that --help lists
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="inference_schema", node=InferenceConfig)
