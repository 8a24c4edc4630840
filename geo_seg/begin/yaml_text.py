"""The text of the YAML: each line with what it rests on, and whether that is a guess."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

GUESS = "guess: "
"""Begins the comment of a line that is a guess."""


@dataclass
class Draft:
    """Lines of a YAML.

    Attributes:
        lines: of the text.
        guesses: keys that are guesses, with what they rest on.
        sure: keys that are not, likewise.
    """

    lines: list[str] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    sure: list[str] = field(default_factory=list)

    def add(self, key: str, value: object, why: str, guess: bool = False, indent: str = "") -> None:
        """Add a line with its evidence.

        Args:
            key: of the line.
            value: number, text, list of those, or None.
            why: what the value rests on; "" for no comment.
            guess: whether it is a guess.
            indent: before the line.
        """
        self.add_text(f"{indent}{key}: {quoted(value)}", why, guess)
        if why:
            dotted = f"split.{key}" if indent else key
            (self.guesses if guess else self.sure).append(f"{dotted}: {quoted(value)}: {why}")

    def add_text(self, text: str, why: str, guess: bool = False) -> None:
        """Add a line as it is, with its evidence."""
        comment = printable(why)
        self.lines.append(f"{text} # {GUESS if guess else ''}{comment}" if comment else text)

    def text(self) -> str:
        """Return the whole text."""
        return "\n".join([*self.lines, ""])


def quoted(value: object) -> str:
    """Return a value as YAML on one line, with nothing in it that YAML or OmegaConf would interpret."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {quoted(v)}' for key, v in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(quoted, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./*-]*", value) and value.lower() not in _YAML_WORDS
        return value if plain else json.dumps(value.replace("${", "\\${"), ensure_ascii=False)
    return json.dumps(value)


_YAML_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n", "nan", "inf"}


@dataclass
class Plan:
    """The YAML, and what is said about it.

    Attributes:
        draft: the lines.
        tables: content of files to be written beside the YAML, by the end of their names.
        notes: what was left out, isn't possible, or should be known.
        loss: the loss to begin with, and why.
        scenes: how many there are.
    """

    draft: Draft
    tables: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    loss: tuple[str, str] = ("", "")
    scenes: int = 0


def printable(text: str) -> str:
    """Return a text with control characters escaped: no name of a file may control the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV, with lines that end in LF."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
