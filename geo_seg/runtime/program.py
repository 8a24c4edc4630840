"""Where geo_seg lies, and the command that its user starts it with. No torch in here.

In a clone that is `python train.py` or `geo_seg train`, whichever was typed; an installed package has the
command alone.
"""

import os
import shlex
import sys
from pathlib import Path

import geo_seg

_PROGRAM = "GEO_SEG_PROGRAM"  # in the environment: processes that a run starts name its command, too
_SCRIPTS = {"train": "train.py", "predict": "inference.py"}


def is_checkout() -> bool:
    """Return whether this is a clone, with the scripts beside the package, and no installed copy."""
    return (_root() / "train.py").is_file() and not _packaged_yaml().is_dir()


def config_dir() -> Path:
    """Return the folder of the YAML files that geo_seg comes with."""
    return _packaged_yaml() if _packaged_yaml().is_dir() else _root() / "config"


def set_program(is_script: bool) -> None:
    """Remember how this process was started; one that another process of geo_seg started keeps its command.

    Args:
        is_script: whether by train.py or inference.py.
    """
    if is_script:
        os.environ.pop(_PROGRAM, None)
    else:
        is_module = Path(sys.argv[0]).name == "__main__.py"
        os.environ.setdefault(_PROGRAM, "python -m geo_seg" if is_module else "geo_seg")


def typed_words(command: str, *, located: bool = False) -> list[str]:
    """Return the words that start a command in a shell: `geo_seg train`, or `python train.py`.

    Args:
        command: "train" or "predict".
        located: whether a script is named by its path, unless it lies in the working folder.
    """
    program = os.environ.get(_PROGRAM) or (None if is_checkout() else "geo_seg")
    if program is not None:
        return [*program.split(), command]
    path = _root() / _SCRIPTS[command]
    return ["python", str(path) if located and path.parent != Path.cwd() else path.name]


def typed_here() -> str:
    """Return the command that started this process."""
    program = os.environ.get(_PROGRAM)
    return shlex.join([*program.split(), *sys.argv[1:]] if program else ["python", *sys.argv])


def torchrun_words(command: str) -> str:
    """Return what torchrun starts in place of a command: a script or a module."""
    script = typed_words(command)[-1]
    return script if script.endswith(".py") else f"-m geo_seg {command}"


def process_words(command: str) -> list[str]:
    """Return the words that start a command in a process of its own, with this Python."""
    if _PROGRAM not in os.environ and sys.argv[0].endswith(".py"):
        return [sys.executable, str(Path(sys.argv[0]).absolute())]
    # -P: a folder `losses` of the user in the working folder would be imported for geo_seg's
    return [sys.executable, "-P", "-m", "geo_seg", command]


def _root() -> Path:
    return Path(geo_seg.__file__).parents[1]


def _packaged_yaml() -> Path:
    return Path(geo_seg.__file__).parent / "yaml"
