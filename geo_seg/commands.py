"""Commands to go on with, as a shell and Hydra take them. No torch in here."""

import re
import shlex
import sys
from pathlib import Path

import geo_seg

_SCRIPTS = Path(geo_seg.__file__).parents[1]


def command(script: str, **values: object) -> str:
    """The line that starts a script of ours from the working folder.

    Args:
        script: its name.
        values: by key; what has other signs than names of files usually have is quoted.
    """
    path = _SCRIPTS / script
    return command_elsewhere(
        script if path.parent == Path.cwd() else shlex.quote(str(path)),
        **values,
    )


def command_elsewhere(script: str, **values: object) -> str:
    """The same line for a file that others may read: without the folder of the script.

    Args:
        script: its name.
        values: see command; their paths should be relative.
    """
    return " ".join(["python", script, *(_given(key, str(value)) for key, value in values.items())])


def again() -> str:
    """Return the line that started this process."""
    return shlex.join(["python", *sys.argv])


def _given(key: str, value: str) -> str:
    if re.fullmatch(r"[\w./+%-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = re.sub(r'(\\+)("|$)', r"\1\1\2", value).replace('"', r"\"")  # as Hydra's quoted values are
    return shlex.quote(f'{key}="{escaped}"')
