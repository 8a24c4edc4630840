"""What files that people hand on say of places: no absolute path, no name of a user or a host. No torch."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PLACE = re.compile(r"[/~]|[A-Za-z]:[\\/]|\\\\|\.\.[\\/]|[A-Za-z][\w+.-]*://")  # how one begins
_FOLDERS = re.compile(r"(?<![\w.:/)\]*?])(?:/|~/|[A-Za-z]:\\)(?:[^\s/\\:;,()'\"]+[/\\])+(?=[^\s/\\])")
_LABEL_KEYS = ("classes", "ignore_values", "label")  # of a data set: they hold texts of the labels, no places


def relative_name(place: str | Path, *folders: str | Path) -> str:
    """Return a place as others may see it: below the first of the folders that holds it, else its name.

    Args:
        place: a path or URL.
        folders: that places are said relative to.
    """
    text = str(place)
    for folder in () if "://" in text else folders:
        path, base = Path(text).absolute(), Path(folder).absolute()
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    name = _path_parts(text)[-1]
    return "~" if name == Path(os.path.expanduser("~")).name else name  # noqa: PTH111 - some have no home


def short_names(places: Sequence[str]) -> dict[str, str]:
    """Return for each place its name, with as many of the folders before it as tell it from the others."""
    parts = {place: _path_parts(place) for place in places}
    for length in itertools.count(1):
        found = {place: "/".join(own[-length:]) for place, own in parts.items()}
        if len(set(found.values())) == len(found) or length > max(map(len, parts.values())):
            return found
    raise AssertionError  # count never ends


def strip_paths(text: str, places: Mapping[str, str] | None = None) -> str:
    """Return a message as others may see it: without the folders of the paths in it.

    Args:
        text: of an error, for example.
        places: what stands for known paths.
    """
    known = places or {}
    for place in sorted(known, key=len, reverse=True):
        text = text.replace(place, known[place])
    return _FOLDERS.sub("", text)


def redact_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run as others may see it.

    Paths below dataset.root are relative to it, others are names.

    Args:
        config: of a run, in plain containers.
    """
    root = config["dataset"]["root"]
    found: dict[str, Any] = _redact(config, root)
    data = config["dataset"]
    found["dataset"] |= {"root": ".", **{key: data[key] for key in _LABEL_KEYS if key in data}}
    if "group" in data.get("split", {}):  # a regular expression may look like a path
        found["dataset"]["split"]["group"] = data["split"]["group"]
    return found


def _redact(value: Any, root: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _redact(part, root) for key, part in value.items()}
    if isinstance(value, list):
        return [_redact(part, root) for part in value]
    if not isinstance(value, str):
        return value
    return relative_name(value, root) if _PLACE.match(value) else strip_paths(value)


def _path_parts(place: str) -> list[str]:
    """The folders and the name of a path or URL, without the server and what it is asked for."""
    path = re.sub(r"^.*?://[^/]*|[?#].*", "", place) if "://" in place else place
    return [part for part in re.split(r"[/\\]+", path) if part] or ["."]
