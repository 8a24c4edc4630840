"""Globs for pairs of files: what both names share becomes a wildcard, what tells them apart stays."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

from geo_seg.begin.words import parts_of, tokens

_WILD = "\0"  # stands for a wildcard in a signature: no file name holds it


class _Template(NamedTuple):
    """A path in parts.

    Attributes:
        parts: literal text, or a wildcard.
        texts: what the wildcards stand for, in their order.
    """

    parts: tuple[str, ...]
    texts: tuple[str, ...]


def pair_globs(pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Return globs of images and masks whose wildcards stand for the same text in each pair.

    Args:
        pairs: paths of an image and its mask.

    Returns:
        None if no two globs match exactly these pairs.
    """
    if any("*" in name for pair in pairs for name in pair):
        return None
    templates = [_pair_templates(image, mask) for image, mask in pairs]
    signatures = {(image.parts, mask.parts) for image, mask in templates}
    if len(signatures) != 1:
        return None
    texts = [image.texts for image, _ in templates]
    constant = [len({row[i] for row in texts}) == 1 for i in range(len(texts[0]))]
    globs = tuple(_glob(template, texts[0], constant) for template in templates[0])
    if (
        any(re.search(r"[\[\]?]|\*\*", glob) for glob in globs)
        or len({glob.count("*") for glob in globs}) > 1
    ):
        return None
    return (globs[0], globs[1]) if all(_agree(globs, pair) for pair in pairs) else None


def images_glob(names: Sequence[str]) -> str | None:
    """Return a glob of images that need no masks of the same name; None if there is none for all of them."""
    parts = [(*parts_of(name), PurePosixPath(name).suffix) for name in names]
    if len({len(row) for row in parts}) > 1 or len({row[-1] for row in parts}) > 1:
        return None
    columns = [{row[i] for row in parts} for i in range(len(parts[0]) - 1)]
    folders = [next(iter(column)) if len(column) == 1 else "*" for column in columns[:-1]]
    glob = "/".join([*folders, _common_glob(sorted(columns[-1]))]) + parts[0][-1]
    plain = not re.search(r"[\[\]?]", glob) and not any("*" in name for name in names)
    return glob if plain and all(glob_regex(glob).fullmatch(name) for name in names) else None


@lru_cache
def glob_regex(glob: str) -> re.Pattern[str]:
    """Return a regular expression whose groups are the wildcards of a glob."""
    return re.compile(
        "".join("([^/]*)" if part == "*" else re.escape(part) for part in re.split(r"(\*)", glob))
    )


def _agree(globs: tuple[str, ...], pair: tuple[str, str]) -> bool:
    matches = [glob_regex(glob).fullmatch(name) for glob, name in zip(globs, pair, strict=True)]
    return all(matches) and len({match.groups() for match in matches if match}) == 1


def _common_glob(stems: Sequence[str]) -> str:
    if len(stems) == 1:
        return stems[0]
    words = [tokens(stem) for stem in stems]
    before = _shared(words)
    after = _shared([row[before:][::-1] for row in words])
    first = words[0]
    return f"{''.join(first[:before])}*{''.join(first[len(first) - after :])}"


def _shared(rows: Sequence[Sequence[str]]) -> int:
    """Return how many entries at their beginning all rows share."""
    length = min(map(len, rows))
    return next((i for i in range(length) if len({row[i] for row in rows}) > 1), length)


def _pair_templates(image: str, mask: str) -> tuple[_Template, _Template]:
    sides = [list(parts_of(name)) for name in (image, mask)]
    parts: tuple[list[str], list[str]] = ([], [])
    texts: list[str] = []

    def add(first: Sequence[str], second: Sequence[str], shared: Sequence[str] = ()) -> None:
        parts[0].extend(first)
        parts[1].extend(second)
        texts.extend(shared)

    folders = [side[:-1] for side in sides]
    for kind, a, b, c, d in SequenceMatcher(None, folders[0], folders[1], autojunk=False).get_opcodes():
        first, second = folders[0][a:b], folders[1][c:d]
        if kind == "equal":
            for folder in first:
                add([_WILD, "/"], [_WILD, "/"], [folder])
        elif len(first) == len(second):
            for one, other in zip(first, second, strict=True):
                add(*_part_templates(one, other))
                add(["/"], ["/"])
        else:
            add([f"{'/'.join(first)}/"] if first else [], [f"{'/'.join(second)}/"] if second else [])
    add(*_part_templates(sides[0][-1], sides[1][-1]))
    add([PurePosixPath(image).suffix], [PurePosixPath(mask).suffix])
    return _Template(tuple(parts[0]), tuple(texts)), _Template(tuple(parts[1]), tuple(texts))


def _part_templates(image: str, mask: str) -> tuple[list[str], list[str], list[str]]:
    """Return the parts of two names, and the texts of the wildcards that they share."""
    if image == mask:
        return [_WILD], [_WILD], [image]
    words = [tokens(image), tokens(mask)]
    before = _shared(words)
    after = _shared([row[before:][::-1] for row in words])
    while before and not words[0][before - 1].isalnum():  # separators stay with what they separate
        before -= 1
    while after and not words[0][len(words[0]) - after].isalnum():
        after -= 1
    start, end = "".join(words[0][:before]), "".join(words[0][len(words[0]) - after :])
    middles = ["".join(row[before : len(row) - after]) for row in words]
    sides = [[*([_WILD] if start else []), middle, *([_WILD] if end else [])] for middle in middles]
    return sides[0], sides[1], [text for text in (start, end) if text]


def _glob(template: _Template, texts: Sequence[str], constant: Sequence[bool]) -> str:
    glob, number = [], 0
    for part in template.parts:
        if part == _WILD:
            glob.append(texts[number] if constant[number] else "*")
            number += 1
        else:
            glob.append(part)
    return "".join(glob)
