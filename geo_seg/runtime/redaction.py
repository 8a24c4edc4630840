"""Files that may be published: without absolute paths, user names and host names. No torch in here."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PATH_START = re.compile(r"[/~]|[A-Za-z]:[\\/]|\\\\|\.\.[\\/]|[A-Za-z][\w+.-]*://")
_FOLDERS = re.compile(r"(?<![\w.:/)\]*?])(?:/|~/|[A-Za-z]:\\)(?:[^\s/\\:;,()'\"]+[/\\])+(?=[^\s/\\])")
_LABEL_KEYS = ("classes", "ignore_values", "label")  # of a data set: they hold label values, no paths


def relative_name(path: str | Path, *folders: str | Path) -> str:
    """Return a path relative to the first of the folders that contains it, otherwise its last component.

    Args:
        path: a path or URL.
        folders: in order of preference.
    """
    text = str(path)
    for folder in () if "://" in text else folders:
        absolute, base = Path(text).absolute(), Path(folder).absolute()
        if absolute.is_relative_to(base):
            return absolute.relative_to(base).as_posix()
    name = _path_parts(text)[-1]
    return "~" if name == Path(os.path.expanduser("~")).name else name  # noqa: PTH111 - some have no home


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique name of each path: its last component, with as many folders as needed."""
    parts = {path: _path_parts(path) for path in paths}
    for length in itertools.count(1):
        names = {path: "/".join(components[-length:]) for path, components in parts.items()}
        if len(set(names.values())) == len(names) or length > max(map(len, parts.values())):
            return names
    raise AssertionError  # count never ends


def strip_paths(text: str, names: Mapping[str, str] | None = None) -> str:
    """Return a message without the folders of the paths in it.

    Args:
        text: of an error, for example.
        names: replacements of known paths.
    """
    replacements = names or {}
    for path in sorted(replacements, key=len, reverse=True):
        text = text.replace(path, replacements[path])
    return _FOLDERS.sub("", text)


def redact_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run for publication.

    Paths below dataset.root become relative to it, others are reduced to their last component.

    Args:
        config: of a run, in plain containers.
    """
    root = config["dataset"]["root"]
    redacted: dict[str, Any] = {key: _redact(part, root) for key, part in config.items()}
    data = config["dataset"]
    redacted["dataset"] |= {"root": ".", **{key: data[key] for key in _LABEL_KEYS if key in data}}
    if "group" in data.get("split", {}):  # a regular expression may look like a path
        redacted["dataset"]["split"]["group"] = data["split"]["group"]
    return redacted


def _redact(value: object, root: str) -> object:
    if isinstance(value, Mapping):
        return {key: _redact(part, root) for key, part in value.items()}
    if isinstance(value, list):
        return [_redact(part, root) for part in value]
    if not isinstance(value, str):
        return value
    return relative_name(value, root) if _PATH_START.match(value) else strip_paths(value)


def _path_parts(path: str) -> list[str]:
    """Return the components of a path or URL, without the server and the query."""
    without_server = re.sub(r"^.*?://[^/]*|[?#].*", "", path) if "://" in path else path
    return [part for part in re.split(r"[/\\]+", without_server) if part] or ["."]
