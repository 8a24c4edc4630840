"""Errors as answers: one line on stderr and an exit code, where an entry point of Hydra's ends."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

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
    did_you_mean,
    first_line,
    missing_extra,
)
from geo_seg.runtime.orphans import end_with_parent
from geo_seg.runtime.ranks import check_ranks, no_output_overrides, rank
from geo_seg.runtime.traces import remove_empty_folders_on_error

_EXPECTED = (GeoSegError, HydraException, OmegaConfBaseException, OSError)
_QUOTING = (
    "a value with other signs than letters, digits and /-%+.,:*? needs double quotes inside of single ones: "
    "'key=\"value\"'; for ~ write $HOME"
)
_FLAGS = {  # what Hydra says of its flags in a traceback, by how it begins
    "The --resolve flag": "--resolve: fills in what --cfg or --help shows; for example --cfg job --resolve",
    "Only one of --run": "expected one of --run, --multirun (-m), --cfg, --info and --shell-completion",
}
_NEEDED = ("dataset", "model", "loss", "optimizer", "scheduler", "trainer", "mode", "model.name", "loss.name")
_EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}


def run_main(main: Callable[[], Any]) -> NoReturn:
    """Runs an entry point of Hydra's; errors of the user's end in one line on stderr and exit code 2.

    Args:
        main: the function under @hydra.main.
    """
    end_with_parent()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions on instead of printing them
    yaml_files.record_yaml_files()
    try:
        _check_folder()
        check_ranks()
        if rank() > 0 or "mode=leaderboard" in sys.argv:
            sys.argv += no_output_overrides()
        check_overrides(sys.argv[1:])
        main()
    except BrokenPipeError:  # whoever read the help has seen enough
        os._exit(141)  # the usual code; leaving in the ordinary way would try to write again
    except _EXPECTED as error:
        _exit_with_error(error)
    except ValueError as error:
        _exit_with_error(_translate_hydra_error(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


@contextmanager
def report_errors() -> Iterator[None]:
    """Answers the errors of a job itself, so that Hydra doesn't add lines; in a sweep Hydra goes on."""
    try:
        with remove_empty_folders_on_error():
            if (said := yaml_files.shadowed_files(sys.argv)) is not None:
                raise ConfigError(said)
            yield
    except _EXPECTED as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            _exit_with_error(error)
        if isinstance(error, IncompatibleChoiceError):
            print(f"skipped: {_line(error)}", file=sys.stderr)
            return
        print(f"error: {_line(error)}", file=sys.stderr)
        raise


def format_error(error: Exception) -> str:
    """The one line that answers an error of Hydra, OmegaConf or ours."""
    cause = error.__cause__
    if isinstance(cause, GeoSegError):
        error = cause  # raised while Hydra built a launcher or sweeper of ours
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _explain_choice(error.missing_cfg_file, error.options, str(error))
    composed = re.match(r"In '([^']+)': \w+ raised while composing", str(error))
    if composed and (said := yaml_files.yaml_error(composed[1])):
        return said
    if isinstance(error, OverrideParseException):
        said = f"{error.override}: this is not key=value ({first_line(error)})"
        return f"{said}; {_QUOTING}" if "=" in error.override else said
    if _is_os_error(error, named=True):
        return f"{error.filename}: {error.strerror}"  # type: ignore[attr-defined]
    broken = cause if isinstance(cause, OmegaConfBaseException) else error
    if isinstance(broken, OmegaConfBaseException):
        return _explain_key(broken, str(error))
    said = first_line(error)
    return said + _origin(said) if isinstance(error, ConfigError) else said


def _line(error: Exception) -> str:
    """Return the answer to an error, its control characters escaped: no file steers a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in format_error(error))


def _origin(said: str) -> str:
    """Which line of a YAML file gives the key that a message begins with, unless the command line does."""
    found = re.match(r"([\w.]+)((?:\[\d+\][\w.]*)*)[=:]", said)
    if found is None:
        return ""
    given = [word.lstrip("+~").partition("=")[0] for word in sys.argv[1:] if "=" in word]
    typed = any(f"{found[1]}.".startswith(f"{word}.") and "." in word for word in given)
    return "" if typed else yaml_files.origin_of(found[0][:-1])


def _exit_with_error(error: Exception) -> NoReturn:
    unexpected = _is_os_error(error, named=False) or not isinstance(error, _EXPECTED)
    if unexpected or "debug=true" in (argument.lower() for argument in sys.argv):
        raise error
    print(f"error: {_line(error)}", file=sys.stderr)
    sys.exit(2)


def _check_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError("the working folder is gone; change to one that is there") from error


def check_overrides(words: Sequence[str]) -> None:
    """Answer what Hydra would answer with other names than those on the command line, or with a traceback.

    Args:
        words: of the command line.

    Raises:
        ConfigError: ~loss, which Hydra deletes and misses later; or a key below one that is a single value.
    """
    for word in words:
        key, given, value = word.lstrip("~+").partition("=")
        if key in {"hydra.run.dir", "hydra.sweep.dir"} and given and value.strip("'\"") == "":
            raise ConfigError(f"{word}: expected the folder that the run goes to")
        if word.startswith("~") and key in _NEEDED:
            raise ConfigError(
                f"{word}: nothing goes without {key}; change it with {key}=..., or leave this out"
            )
        for schema in (TrainConfig, InferenceConfig):
            above = scalar_parent(key, schema) if given else None
            if above:
                meant = [known for known in dotted_keys(schema) if known.endswith(f".{key}")]
                hint = f"did you mean {' or '.join(map(repr, meant))}?" if meant else f"expected {above}=..."
                raise ConfigError(f"{word}: {above} is one value, with no keys below it; {hint}")


def _translate_hydra_error(error: ValueError) -> Exception:
    """What Hydra says of loss=null or its flags in a traceback, as an answer; other errors as they are."""
    for beginning, said in _FLAGS.items():
        if str(error).startswith(beginning):
            return ConfigError(said)
    if not str(error).startswith("Config group override must be"):
        return (
            error
            if HydraConfig.initialized()
            else ConfigError(yaml_files.last_yaml_file() + first_line(error))
        )
    given = [word for word in sys.argv[1:] if word.rpartition("=")[2] in {"null", "true", "false"}]
    return ConfigError(
        f"{' '.join(given) or first_line(error)}: expected a name; `none` switches off what can be: logger, "
        "callbacks, augment, average; what needs no name is left out"
    )


def _explain_choice(choice: str, options: Sequence[str], message: str) -> str:
    group, _, name = choice.rpartition("/")
    if group == "hydra/launcher" and name in _EXTRAS:
        return f"launcher={name}: {missing_extra(_EXTRAS[name])}"
    roots = [Path(found) for found in re.findall(r"path=file://(.+)$", message, re.MULTILINE)]
    looked = f"; looked in {' and '.join(str(root / group) for root in roots)}" if roots else ""
    hint = _misplaced(group, name, roots) or did_you_mean(name, options)
    return f"{group}={name}: there is no such {group}; {hint}{looked}"


def _misplaced(group: str, name: str, roots: Sequence[Path]) -> str:
    """What to do with a YAML file of that name that lies where Hydra doesn't look; "" where there is none."""
    stem = Path(name).name.removesuffix(".yaml")
    here = Path.cwd()
    for folder in (here / group, here, *roots, *(there for root in roots[1:] for there in root.glob("*/"))):
        file = folder / f"{stem}.yaml"
        if file.is_file() and file not in {root / group / file.name for root in roots}:
            if folder.name == group:
                return f"{file} is found with --config-dir {folder.parent} {group}={stem}"
            return f"{file} lies in no folder {group}: move it into one, and give --config-dir the one above"
    return ""


def _explain_key(error: OmegaConfBaseException, message: str) -> str:
    key = error.full_key or error.key
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: no value; give it as {key}=... or in its YAML"
    parent = error.parent_node
    known = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    if known and error.key is not None and str(error.key) not in known:
        deeper = [f"{section}.{key}" for section in known if key in _keys_of(parent, section)]
        hint = (
            f"did you mean {' or '.join(map(repr, deeper))}?"
            if deeper
            else did_you_mean(str(error.key), known)
        )
        return f"{key}: there is no such key; {hint}"
    if isinstance(error, ConfigAttributeError):  # below a value of an open section
        return f"{key}: {str(key).rpartition('.')[0]} is one value, with no keys below it"
    said = first_line(Exception(error.msg) if error.msg else error)
    return f"{key}: {said}" if key else first_line(Exception(message))


def _keys_of(parent: Any, section: str) -> list[str]:
    inside = parent._get_node(section)  # as it is: it may have no value, or one that can't be resolved
    return [str(key) for key in inside] if isinstance(inside, DictConfig) and not inside._is_missing() else []


def _is_os_error(error: Exception, named: bool) -> bool:
    """Whether it is an error of the operating system, with or without the name of a file."""
    system = isinstance(error, OSError) and not isinstance(error, HydraException)
    return system and (error.filename is not None) == named  # type: ignore[attr-defined]
