"""YAML files of a configuration: their errors, and the line of each key."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, did_you_mean, first_line
from geo_seg.runtime import program
from geo_seg.runtime.ranks import rank

USER_SCHEME = "user"
"""Scheme of the sources of Hydra that are folders of the user."""

_ROOT_FILES = ("train", "inference")  # their keys are defaults, no choice of a group
_TYPE_NAMES: dict[object, str] = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
}


@dataclass(frozen=True)
class _File:
    path: Path
    prefix: str  # of its keys: "dataset." or ""

    @property
    def display_path(self) -> str:
        """The path, relative to the working folder if it is below it."""
        folder = Path.cwd()
        return str(self.path.relative_to(folder) if self.path.is_relative_to(folder) else self.path)


_loaded: dict[str, _File] = {}  # by their names in Hydra, in the order in which they were read
_said: set[Path] = set()


class UserYaml(FileConfigSource):
    """Groups of a folder of the user; its other YAML files are no choices, and may be another program's."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the source."""
        return USER_SCHEME

    def is_config(self, config_path: str) -> bool:
        """Return whether a group has that file."""
        return "/" in config_path and super().is_config(config_path)

    # Hydra has a second class of the name FileConfigSource: record_yaml_files doesn't reach this one
    load_unrecorded = FileConfigSource.load_config

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of a file, recorded as those of geo_seg are."""
        result: ConfigResult = _load_recorded(self, config_path)
        return result


class UserFolders(SearchPathPlugin):
    """Search path with the folders of the user before geo_seg's own: that of --config-dir, then `config/`."""

    config_dirs: ClassVar[list[Path]] = []

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders."""
        for folder in self.config_dirs:
            search_path.prepend("user", f"{USER_SCHEME}://{folder}", anchor="main")


def search_user_folders(config_dir: str | None) -> None:
    """Make Hydra find the groups in folders of the user, ahead of those that geo_seg comes with.

    Args:
        config_dir: of the command line; a folder `config` in the working folder is searched, too.
    """
    folders = [Path(config_dir)] if config_dir is not None else []
    UserFolders.config_dirs = [
        folder.absolute()
        for folder in (*folders, Path("config"))
        if folder.is_dir() and not folder.samefile(program.config_dir())
    ]
    SourcesRegistry.instance().register(UserYaml)
    Plugins.instance().register(UserFolders)


def record_yaml_files() -> None:
    """Make Hydra record the paths of YAML files that it reads, and report those that are invalid."""
    Plugins.instance()  # registers the reader; Hydra would do so next
    reader: Any = SourcesRegistry.instance().resolve("file")  # gets a further method
    if not hasattr(reader, "load_unrecorded"):
        reader.load_unrecorded, reader.load_config = reader.load_config, _load_recorded


def forget_yaml_files() -> None:
    """Forget the recorded files: the configuration comes from a run folder."""
    _loaded.clear()


def last_yaml_file() -> str:
    """Return the path of the last file and ": ", for an error of Hydra in its list of defaults."""
    return f"{[*_loaded.values()][-1].display_path}: " if _loaded else ""


def origin_of(key: str) -> str:
    """Return the file and line that set a key: " (mine/dataset/rivers.yaml line 3)".

    Args:
        key: "dataset.split.val" or "dataset.classes[2].color"; for missing elements the line of the list.

    Returns:
        "" if no file of a group sets it.
    """
    for file in reversed(_loaded.values()):
        lines = _lines(file)
        for name in _key_and_lists(key):
            if name in lines:
                line = file.path.read_text(encoding="utf-8").splitlines()[lines[name] - 1]
                value = line.partition(f"{name.rpartition('.')[2]}:")[2].lstrip()
                hash_first = ", where # begins a comment: it needs quotes" if value.startswith("#") else ""
                return f" ({file.display_path} line {lines[name]}{hash_first})"
    return ""


def _key_and_lists(key: str) -> Iterator[str]:
    """Yield a key, then the elements and lists that contain it, from the inside out."""
    yield key
    while "[" in key:
        key = key.rpartition("[" if key.endswith("]") else ".")[0]
        yield key


def yaml_error(name: str) -> str | None:
    """Return the error of a file that can't be merged into the configuration; None if it is unknown.

    Args:
        name: of the file in Hydra, "dataset/rivers".
    """
    file = _loaded.get(name)
    if file is None:
        return None
    lines = _lines(file)
    content = yaml.safe_load(file.path.read_text(encoding="utf-8"))
    schema, prefix = TrainConfig, ""
    for section in filter(None, file.prefix.split(".")):
        type_ = {field.name: field.type for field in fields(schema)}.get(section)
        if not is_dataclass(type_):
            return None
        schema, prefix = type_, f"{prefix}{section}."  # type: ignore[assignment]
    for key, message in _schema_errors(content, schema, prefix):
        return f"{file.display_path} line {lines.get(key, 1)}: {message}"
    return None


def _schema_errors(content: dict[str, Any], schema: type, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the invalid keys of a file, each with its error message."""
    types = {field.name: field.type for field in fields(schema)}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if not prefix and name in {"defaults", "hydra"}:
            continue
        if name not in types:
            yield key, f"{key}: unknown key {str(name)!r}; {did_you_mean(str(name), types)}"
            continue
        type_ = types[name]
        if is_dataclass(type_) and isinstance(value, dict):
            yield from _schema_errors(value, type_, f"{key}.")  # type: ignore[arg-type]
            continue
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {name: value})
        except OmegaConfBaseException as error:
            yield key, f"{key}={value!r}: {_mismatch(type_, value, error)}"


def _mismatch(annotation: object, value: object, error: OmegaConfBaseException) -> str:
    members = get_args(annotation) or [annotation]
    types = [dict if is_dataclass(member) else get_origin(member) or member for member in members]
    wanted_type = next((c for c in (list, dict) if c in [get_origin(annotation), *types]), types[0])
    if wanted_type in {dict, list} or isinstance(value, dict | list):
        expected, got = (_TYPE_NAMES.get(type_, "a single value") for type_ in (wanted_type, type(value)))
        return f"expected {expected}, got {got}"
    return first_line(Exception(error.msg) if error.msg else error)


def _load_recorded(source: Any, config_path: str) -> ConfigResult:  # a source that has load_unrecorded
    name = config_path.removesuffix(".yaml")
    if name in _ROOT_FILES:  # start of a configuration
        _loaded.clear()
    path = Path(source.path) / f"{name}.yaml"
    if source.scheme() == USER_SCHEME:
        _say_if_shadowing(path, name)
    try:
        result = source.load_unrecorded(config_path)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_error(path, error)) from error
    except yaml.YAMLError as error:  # a character that YAML doesn't have
        raise ConfigError(f"{path}{_line_of(path, error)}: not YAML ({first_line(error)})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except (OSError, OmegaConfBaseException, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(f"{path}: expected a mapping of keys and values ({first_line(error)})") from error
    if not isinstance(result.config, DictConfig):
        raise ConfigError(f"{path}: expected a mapping of keys and values, got a list")
    package = result.header.get("package") or ".".join(name.split("/")[:-1])
    if name not in _ROOT_FILES:
        _loaded[name] = _File(path, "" if package == "_global_" else f"{package}.".removeprefix("."))
    return result


def _say_if_shadowing(path: Path, name: str) -> None:
    """Print once that a file of the user is read in place of geo_seg's; a copy of it isn't worth a line."""
    own = program.config_dir() / f"{name}.yaml"
    if rank() != 0 or "COMP_LINE" in os.environ or path in _said or not own.is_file():
        return  # while a shell completes a word, every line would stand in it
    _said.add(path)
    if own.read_bytes() != path.read_bytes():
        group, _, choice = name.rpartition("/")
        shown = str(path).encode("unicode_escape").decode()
        print(f"note: {shown} is read in place of geo_seg's own {group}={choice}", file=sys.stderr)


def _syntax_error(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    message = (error.problem or error.context or "").replace("\n", " ")
    lines = enumerate(path.read_text(encoding="utf-8").splitlines()[: line + 1])
    unquoted = [number for number, text in lines if re.match(r"[^#]*[{\[][^#]*: +#", text)]
    if unquoted:
        line, message = unquoted[-1], "here # begins a comment: a colour needs quotes"
    elif "'\\t'" in message:
        message += "; indent with spaces instead of tabs"
    elif message.startswith("mapping values are not allowed"):
        message += "; a text with a colon needs quotes"
    return f"{path} line {line + 1}: not YAML ({message})"


def _line_of(path: Path, error: yaml.YAMLError) -> str:
    position = getattr(error, "position", None)
    if position is None:
        return ""
    return f" line {path.read_text(encoding='utf-8', errors='replace')[:position].count(chr(10)) + 1}"


def _lines(file: _File) -> dict[str, int]:
    """Return the line of every key and of every element of a list."""
    lines: dict[str, int] = {}

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}.{key.value}".removeprefix(".")
                lines[name] = key.start_mark.line + 1
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                lines[f"{prefix}[{number}]"] = value.start_mark.line + 1
                walk(value, f"{prefix}[{number}]")

    walk(yaml.compose(file.path.read_text(encoding="utf-8"), yaml.SafeLoader), file.prefix.removesuffix("."))
    return lines
