"""Entry points of Hydra with errors in one line each on stderr, and exit codes."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, MissingMandatoryValue, OmegaConfBaseException

from geo_seg.config import yaml_files
from geo_seg.config.fields import dotted_keys, scalar_parent
from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import TrainConfig
from geo_seg.errors import (
    ConfigError,
    GeoSegError,
    IncompatibleChoiceError,
    MultipleConfigError,
    did_you_mean,
    first_line,
    missing_extra,
)
from geo_seg.runtime.orphans import end_with_parent
from geo_seg.runtime.process import setup_process
from geo_seg.runtime.program import config_dir
from geo_seg.runtime.ranks import check_ranks, no_output_overrides, rank
from geo_seg.runtime.traces import remove_empty_folders_on_error

_EXPECTED_ERRORS = (GeoSegError, HydraException, OmegaConfBaseException, OSError)
_QUOTING_HINT = (
    "a value with other characters than letters, digits and /-%+.,:*? needs double quotes in single quotes: "
    "'key=\"value\"'; for ~ write $HOME"
)
_FLAG_ERRORS = {  # by the beginning of the text that Hydra raises
    "The --resolve flag": "--resolve: fills in what --cfg or --help shows; for example --cfg job --resolve",
    "Only one of --run": "expected one of --run, --multirun (-m), --cfg, --info and --shell-completion",
}
_REQUIRED_KEYS = (
    "dataset",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "mode",
    "model.name",
    "loss.name",
)
_EXTRAS_BY_LAUNCHER = {
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
}


def run_main(main: Callable[[list[str]], object], words: Sequence[str]) -> NoReturn:
    """Run an entry point of Hydra; expected errors end in one line on stderr and exit code 2.

    Args:
        main: called with the words, and with those that the rank of this process adds.
        words: of the command line, after the name of the command.
    """
    end_with_parent()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its exceptions instead of printing them
    yaml_files.record_yaml_files()
    try:
        _check_working_folder()
        check_ranks()
        check_overrides(words)
        is_silent = rank() > 0 or "mode=leaderboard" in words
        main([*words, *(no_output_overrides() if is_silent else ())])
    except BrokenPipeError:  # the help was piped to a program that has ended
        os._exit(141)  # the usual code; a regular exit would try to write again
    except _EXPECTED_ERRORS as error:
        _exit_with_error(error)
    except ValueError as error:
        _exit_with_error(_translate_hydra_error(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


@contextmanager
def report_errors() -> Iterator[None]:
    """Set up the process of a job, and report its errors in one line, so that Hydra adds nothing.

    Every job runs in it, in whatever process a launcher has started: before torch is imported and a raster
    is opened. In a sweep Hydra continues after an error.
    """
    setup_process()
    try:
        with remove_empty_folders_on_error():
            yield
    except _EXPECTED_ERRORS as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            _exit_with_error(error)
        if isinstance(error, IncompatibleChoiceError):
            print_error(error, "skipped")
            return
        print_error(error)
        raise


def format_error(error: Exception) -> str:
    """Return the message of an error of Hydra, OmegaConf or geo_seg in one line."""
    return "; ".join(map(_format_single, _single_errors(error)))


def _single_errors(error: Exception) -> Sequence[Exception]:
    return error.errors if isinstance(error, MultipleConfigError) else [error]


def _format_single(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, GeoSegError):
        error = cause  # raised while Hydra instantiated a launcher or sweeper of geo_seg
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _explain_choice(error.missing_cfg_file, error.options, str(error))
    composed = re.match(r"In '([^']+)': \w+ raised while composing", str(error))
    if composed and (message := yaml_files.yaml_error(composed[1])):
        return message
    if isinstance(error, OverrideParseException):
        message = f"{error.override}: this is not key=value ({first_line(error)})"
        return f"{message}; {_QUOTING_HINT}" if "=" in error.override else message
    if _is_os_error(error, named=True):
        return f"{error.filename}: {error.strerror}"  # type: ignore[attr-defined]
    root_cause = cause if isinstance(cause, OmegaConfBaseException) else error
    if isinstance(root_cause, OmegaConfBaseException):
        return _explain_key(root_cause, str(error))
    message = first_line(error)
    return message + _origin(message) if isinstance(error, ConfigError) else message


def print_error(error: Exception, label: str = "error") -> None:
    """Print an error on stderr in one line; several errors of a configuration in one line each.

    Control characters are escaped: no file may control the terminal.
    """
    for message in map(_format_single, _single_errors(error)):
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        print(f"{label}: {line}", file=sys.stderr)


def _origin(message: str) -> str:
    """Return the file and line that set the key at the start of a message, unless the command line does."""
    key = re.match(r"([\w.]+)((?:\[\d+\][\w.]*)*)[=:]", message)
    if key is None:
        return ""
    overrides = [word.lstrip("+~").partition("=")[0] for word in sys.argv[1:] if "=" in word]
    overridden = any(f"{key[1]}.".startswith(f"{word}.") and "." in word for word in overrides)
    return "" if overridden else yaml_files.origin_of(key[0][:-1])


def _exit_with_error(error: Exception) -> NoReturn:
    unexpected = _is_os_error(error, named=False) or not isinstance(error, _EXPECTED_ERRORS)
    if unexpected or "debug=true" in (argument.lower() for argument in sys.argv):
        raise error
    print_error(error)
    sys.exit(2)


def _check_working_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError("the working folder no longer exists; change to another one") from error


def check_overrides(words: Sequence[str]) -> None:
    """Check for errors of overrides that Hydra would report under other names, or with a traceback.

    Args:
        words: of the command line.

    Raises:
        ConfigError: an empty run folder, a required key that is deleted (~loss), or a key below one that is a
            single value.
    """
    for word in words:
        key, equals, value = word.lstrip("~+").partition("=")
        if key in {"hydra.run.dir", "hydra.sweep.dir"} and equals and value.strip("'\"") == "":
            raise ConfigError(f"{word}: expected the folder that the run goes to")
        if word.startswith("~") and key in _REQUIRED_KEYS:
            raise ConfigError(f"{word}: {key} is required; change it with {key}=..., or leave this out")
        for schema in (TrainConfig, InferenceConfig):
            parent = scalar_parent(key, schema) if equals else None
            if parent:
                matches = [name for name in dotted_keys(schema) if name.endswith(f".{key}")]
                hint = (
                    f"did you mean {' or '.join(map(repr, matches))}?"
                    if matches
                    else f"expected {parent}=..."
                )
                raise ConfigError(f"{word}: {parent} is one value, with no keys below it; {hint}")


def _translate_hydra_error(error: ValueError) -> Exception:
    """Return a ConfigError for what Hydra raises for loss=null or its flags; other errors unchanged."""
    for beginning, message in _FLAG_ERRORS.items():
        if str(error).startswith(beginning):
            return ConfigError(message)
    if not str(error).startswith("Config group override must be"):
        return (
            error
            if HydraConfig.initialized()
            else ConfigError(yaml_files.last_yaml_file() + first_line(error))
        )
    words = [word for word in sys.argv[1:] if word.rpartition("=")[2] in {"null", "true", "false"}]
    return ConfigError(
        f"{' '.join(words) or first_line(error)}: expected a name; `none` switches off logger, callbacks, "
        "augment and average; leave out what needs no name"
    )


def _explain_choice(choice: str, options: Sequence[str], message: str) -> str:
    group, _, name = choice.rpartition("/")
    if group == "hydra/launcher" and name in _EXTRAS_BY_LAUNCHER:
        return f"launcher={name}: {missing_extra(_EXTRAS_BY_LAUNCHER[name])}"
    paths = re.findall(rf"path=(?:file|{yaml_files.USER_SCHEME})://(.+)$", message, re.MULTILINE)
    roots = sorted(dict.fromkeys(map(Path, paths)), key=lambda root: root != config_dir())
    searched = f"; looked in {' and '.join(str(root / group) for root in roots)}" if roots else ""
    hint = _misplaced(group, name, roots) or did_you_mean(name, options)
    return f"{group}={name}: unknown {group} {name!r}; {hint}{searched}"


def _misplaced(group: str, name: str, roots: Sequence[Path]) -> str:
    """Return what to do with a YAML file of that name where Hydra doesn't look; "" if there is none."""
    stem = Path(name).name.removesuffix(".yaml")
    working_folder = Path.cwd()
    subfolders = (folder for root in roots[1:] for folder in root.glob("*/"))
    for folder in (working_folder / group, working_folder, *roots, *subfolders):
        file = folder / f"{stem}.yaml"
        if file.is_file() and file not in {root / group / file.name for root in roots}:
            if folder.name == group:
                return f"{file} is found with --config-dir {folder.parent} {group}={stem}"
            return f"{file} is in no folder {group}: move it into one, and give its parent as --config-dir"
    return ""


def _explain_key(error: OmegaConfBaseException, message: str) -> str:
    key = error.full_key or error.key
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: no value; give it as {key}=... or in its YAML"
    parent = error.parent_node
    names = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    if names and error.key is not None and str(error.key) not in names:
        nested = [f"{section}.{key}" for section in names if key in _keys_of(parent, section)]
        hint = (
            f"did you mean {' or '.join(map(repr, nested))}?"
            if nested
            else did_you_mean(str(error.key), names)
        )
        return f"{key}: unknown key {str(error.key)!r}; {hint}"
    if isinstance(error, ConfigAttributeError):  # below a value of an open section
        return f"{key}: {str(key).rpartition('.')[0]} is one value, with no keys below it"
    text = first_line(Exception(error.msg) if error.msg else error)
    return f"{key}: {text}" if key else first_line(Exception(message))


def _keys_of(parent: object, section: str) -> list[str]:
    # unresolved: it may be missing, or an interpolation that fails
    node = parent._get_node(section) if isinstance(parent, DictConfig) else None
    return [str(key) for key in node] if isinstance(node, DictConfig) and not node._is_missing() else []


def _is_os_error(error: Exception, named: bool) -> bool:
    """Return whether it is an error of the operating system, with or without the name of a file."""
    is_os_error = isinstance(error, OSError) and not isinstance(error, HydraException)
    return is_os_error and (error.filename is not None) == named  # type: ignore[attr-defined]
