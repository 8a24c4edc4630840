"""The YAML files that a configuration is read from: what is wrong in one, and which line says what."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, did_you_mean, first_line

_ROOT = ("train", "inference")  # whose keys are no choice of anybody's
_KINDS = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", int: "a whole number"}


@dataclass(frozen=True)
class _File:
    path: Path
    package: str  # of its keys: "dataset." or ""

    @property
    def shown(self) -> str:
        """Its path, from the working folder where it lies below."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)


_read: dict[str, _File] = {}  # by what Hydra calls them, in the order in which they were read


def record_yaml_files() -> None:
    """Has Hydra's reader of YAML files note where they lie, and answer those that hold no configuration."""
    Plugins.instance()  # makes them known; Hydra would do so next
    reader: Any = SourcesRegistry.instance().resolve("file")
    if not hasattr(reader, "watched"):
        reader.watched, reader.load_config = reader.load_config, _watched


def forget_yaml_files() -> None:
    """Forgets what was read: the configuration comes from elsewhere."""
    _read.clear()


def last_yaml_file() -> str:
    """Return the file that was read last and a colon: what Hydra fails at next is its list of defaults."""
    return f"{[*_read.values()][-1].shown}: " if _read else ""


def origin_of(key: str) -> str:
    """Where a file gives a key its value: " (mine/dataset/rivers.yaml line 3)".

    Args:
        key: "dataset.split.val" or "dataset.classes[2].color"; a list stands for parts that aren't there.

    Returns:
        "" for what no file of a choice says.
    """
    for file in reversed(_read.values()):
        lines = _lines(file)
        for name in _section_of(key):
            if name in lines:
                written = file.path.read_text(encoding="utf-8").splitlines()[lines[name] - 1]
                value = written.partition(f"{name.rpartition('.')[2]}:")[2].lstrip()
                hash_first = ", where # begins a comment: it needs quotes" if value.startswith("#") else ""
                return f" ({file.shown} line {lines[name]}{hash_first})"
    return ""


def _section_of(key: str) -> Iterator[str]:
    """A key, and the elements of lists and the lists that it lies in."""
    yield key
    while "[" in key:
        key = key.rpartition("[" if key.endswith("]") else ".")[0]
        yield key


def yaml_error(name: str) -> str | None:
    """What is wrong in a file that can't become a part of the configuration; None where that isn't known.

    Args:
        name: what Hydra calls it, "dataset/rivers".
    """
    file = _read.get(name)
    if file is None:
        return None
    lines = _lines(file)
    content = yaml.safe_load(file.path.read_text(encoding="utf-8"))
    schema, at = TrainConfig, ""
    for section in filter(None, file.package.split(".")):
        found = {field.name: field.type for field in fields(schema)}.get(section)
        if not is_dataclass(found):
            return None
        schema, at = found, f"{at}{section}."  # type: ignore[assignment]
    for key, said in _schema_errors(content, schema, at):
        return f"{file.shown} line {lines.get(key, 1)}: {said}"
    return None


def _schema_errors(content: dict[Any, Any], schema: type, at: str) -> Iterator[tuple[str, str]]:
    """Keys of a file that don't fit, each with what is wrong."""
    known = {field.name: field.type for field in fields(schema)}
    for name, value in content.items():
        key = f"{at}{name}"
        if not at and name in {"defaults", "hydra"}:
            continue
        if name not in known:
            yield key, f"{key}: there is no such key; {did_you_mean(str(name), known)}"
            continue
        kind = known[name]
        if is_dataclass(kind) and isinstance(value, dict):
            yield from _schema_errors(value, kind, f"{key}.")  # type: ignore[arg-type]
            continue
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {name: value})
        except OmegaConfBaseException as error:
            yield key, f"{key}={value!r}: {_expected(kind, value, error)}"


def _expected(kind: Any, value: Any, error: OmegaConfBaseException) -> str:
    kinds = [dict if is_dataclass(one) else get_origin(one) or one for one in (get_args(kind) or [kind])]
    wanted = next((one for one in (list, dict) if one in [get_origin(kind), *kinds]), kinds[0])
    if wanted in {dict, list} or isinstance(value, dict | list):
        expected, got = (_KINDS.get(one, "a single value") for one in (wanted, type(value)))
        return f"expected {expected}, got {got}"
    return first_line(Exception(error.msg) if error.msg else error)


def shadowed_files(argv: Sequence[str]) -> str | None:
    """A file of --config-dir that Hydra doesn't read, because the repository has one of that name.

    Args:
        argv: the words of the command line.
    """
    given = [word.partition("=")[2] for word in argv if word.startswith(("--config-dir=", "-cd="))]
    given += [other for word, other in pairwise(argv) if word in {"--config-dir", "-cd"}]
    for folder in given:
        for name, file in _read.items():
            mine = Path(folder) / f"{name}.yaml"
            if mine.is_file() and not mine.samefile(file.path):
                return f"{mine}: {file.shown} has that name, too, and is what is read; give yours another one"
    return None


def _watched(source: Any, config_path: str) -> Any:
    name = config_path.removesuffix(".yaml")
    if name in _ROOT:  # a configuration begins
        _read.clear()
    path = Path(source.path) / f"{name}.yaml"
    try:
        found = source.watched(config_path)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_marked(path, error)) from error
    except yaml.YAMLError as error:  # a character that YAML doesn't have
        raise ConfigError(f"{path}{_line_of(path, error)}: not YAML ({first_line(error)})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except (OSError, OmegaConfBaseException, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(f"{path}: expected a mapping of keys and values ({first_line(error)})") from error
    if not isinstance(found.config, DictConfig):
        raise ConfigError(f"{path}: expected a mapping of keys and values, got a list")
    package = found.header.get("package") or ".".join(name.split("/")[:-1])
    if name not in _ROOT:
        _read[name] = _File(path, "" if package == "_global_" else f"{package}.".removeprefix("."))
    return found


def _marked(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    at = mark.line if mark else 0
    said = (error.problem or error.context or "").replace("\n", " ")
    before = enumerate(path.read_text(encoding="utf-8").splitlines()[: at + 1])
    cut = [number for number, line in before if re.match(r"[^#]*[{\[][^#]*: +#", line)]
    if cut:
        at, said = cut[-1], "here # begins a comment: a colour needs quotes"
    elif "'\\t'" in said:
        said += "; indent with spaces instead of tabs"
    elif said.startswith("mapping values are not allowed"):
        said += "; a text with a colon needs quotes"
    return f"{path} line {at + 1}: not YAML ({said})"


def _line_of(path: Path, error: yaml.YAMLError) -> str:
    position = getattr(error, "position", None)
    if position is None:
        return ""
    return f" line {path.read_text(encoding='utf-8', errors='replace')[:position].count(chr(10)) + 1}"


def _lines(file: _File) -> dict[str, int]:
    """The line of every key and of every element of a list."""
    found: dict[str, int] = {}

    def walk(node: Any, at: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{at}.{key.value}".removeprefix(".")
                found[name] = key.start_mark.line + 1
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                found[f"{at}[{number}]"] = value.start_mark.line + 1
                walk(value, f"{at}[{number}]")

    walk(yaml.compose(file.path.read_text(encoding="utf-8"), yaml.SafeLoader), file.package.removesuffix("."))
    return found
