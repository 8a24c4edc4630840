"""The command geo_seg: `geo_seg train loss=focal`, also as `python -m geo_seg train loss=focal`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import geo_seg
from geo_seg.errors import did_you_mean
from geo_seg.runtime.program import set_program

_OVERVIEW = """\
Trains and runs semantic segmentation on satellite and aerial rasters, every choice one word.

{commands}

  geo_seg train                                         the demo: draws its data, trains, tests, reports
  geo_seg begin <folder>                                your own images and labels: writes their YAML
  geo_seg train loss=focal model.encoder=resnet34       one word for each choice
  geo_seg train -m loss=cross_entropy,focal,dice        a sweep, with a leaderboard
  geo_seg predict checkpoint=runs/demo/<run> input=scenes/ output=maps

geo_seg train --help and geo_seg predict --help list every choice and key; --version says the version.
YAML files of your own lie in config/<group>/ beside you, or below the folder of --config-dir.
eval "$(geo_seg -sc install=bash)" makes bash complete groups, choices and keys."""


@dataclass(frozen=True)
class _Command:
    """A subcommand that runs under Hydra.

    Attributes:
        meaning: its line of the overview.
        config_name: YAML file that its configuration begins with.
        overrides: that it stands for.
    """

    meaning: str
    config_name: str = "train"
    overrides: tuple[str, ...] = ()

    def run(self, words: Sequence[str]) -> NoReturn:
        """Run it with the words of the command line after its name, and exit."""
        from geo_seg.commands.hydra_job import run_job

        if self.config_name == "train":
            from geo_seg.commands.train import train

            run_job(train, self.config_name, [*self.overrides, *words])
        from geo_seg.commands.inference import predict

        run_job(predict, self.config_name, [*self.overrides, *words])


_COMMANDS = {
    "train": _Command("trains a model, tests it, and leaves a run folder with a report"),
    "predict": _Command("maps rasters with a trained model", "inference"),
    "check": _Command("examines a data set before training on it", overrides=("mode=check",)),
    "test": _Command("scores a trained model: checkpoint=<run>", overrides=("mode=test",)),
    "leaderboard": _Command("compares the runs of a sweep: sweep=<folder>", overrides=("mode=leaderboard",)),
}


_MEANINGS = {
    "begin": "writes the YAML of a data set for the images and labels in a folder",
    **{name: command.meaning for name, command in _COMMANDS.items()},
}


def main() -> NoReturn:
    """Run the command line, and exit."""
    set_program(is_script=False)
    words = sys.argv[1:]
    name = words[0] if words else "--help"
    if name in _COMMANDS:
        _run(name, words[1:])
    if name == "begin":
        from geo_seg.begin.run import main as begin

        sys.exit(begin(words[1:]))
    if name in {"-sc", "--shell-completion"}:
        _complete(words)
    if name in {"-h", "--help"}:
        _print(
            _OVERVIEW.format(commands="\n".join(f"  {n:12} {meaning}" for n, meaning in _MEANINGS.items()))
        )
    if name in {"-V", "--version"}:
        _print(f"geo_seg {geo_seg.__version__}")
    if "=" in name or name.startswith("-"):
        _exit(f"{name}: expected a command before it, as in `geo_seg train {name}`")
    _exit(f"{name}: unknown command {name!r}; {did_you_mean(name, _MEANINGS)}")


def run_script(name: str) -> NoReturn:
    """Run what a script is the face of, and exit.

    Args:
        name: of the command.
    """
    set_program(is_script=True)
    _COMMANDS[name].run(sys.argv[1:])


def _run(name: str, words: Sequence[str]) -> NoReturn:
    command = _COMMANDS[name]
    for word in words:
        if command.overrides and word.startswith("mode=") and word not in command.overrides:
            _exit(f"{word}: `geo_seg {name}` stands for {command.overrides[0]}; leave one of them out")
    command.run([word for word in words if word not in command.overrides])


def _complete(words: Sequence[str]) -> NoReturn:
    """Answer the shell, which asks without the name of a command: it stands in the line to be completed."""
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    if not any(word.startswith("query=") for word in words):
        _COMMANDS["train"].run(words)
    if not typed or (len(typed) == 1 and not line.endswith(" ")):
        _print(" ".join(name for name in _MEANINGS if name.startswith("".join(typed))))
    if typed[0] not in _COMMANDS:
        sys.exit(0)
    os.environ["COMP_LINE"] = f"geo_seg {line.split(maxsplit=2)[2] if len(typed) > 1 else ''}"
    _COMMANDS[typed[0]].run(words)


def _print(text: str) -> NoReturn:
    print(text)
    sys.exit(0)


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
