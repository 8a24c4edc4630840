"""Writes docs/keys.md: every key of training and inference, with its default, valid values and meaning.

Made from the schema (geo_seg/config), so that the page can't say anything else:

    python benchmarks/keys_table.py          # writes docs/keys.md
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from omegaconf import MISSING, OmegaConf  # noqa: E402

from geo_seg.config.fields import Key, keys  # noqa: E402
from geo_seg.config.inference import InferenceConfig  # noqa: E402
from geo_seg.config.training import TrainConfig  # noqa: E402

PAGE = ROOT / "docs" / "keys.md"
_HEAD = """# All keys

What `python train.py` and `python inference.py` take, with the default, the valid values and the meaning of
each key. A key with \\* may change when a run is resumed. One in *italics* changes neither what a run learns
nor the pixels of a map: a finished run, or map, with another value of it counts as the same. Options of a
model, loss, optimizer, scheduler, logger or launcher stand in their YAML below `config/`, those of the losses
in [losses.md](losses.md) as well. `required` keys have no default; data sets and groups of `config/` give
them.

This page is made by `benchmarks/keys_table.py` (`make docs`) from the schema in `geo_seg/config`.
"""


def attributes(schema: type) -> dict[str, str]:
    """Return the meaning of each field, from the section Attributes of a docstring."""
    text = inspect.getdoc(schema) or ""
    section = text.partition("Attributes:\n")[2]
    meanings = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in meanings}


def rows(schema: type, at: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield key, default, valid values and meaning of every field, sections after the keys beside them."""
    meanings, declarations, sections = attributes(schema), dict(keys(schema)), []
    for field in dataclasses.fields(schema):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            sections.append((field.type, f"{at}{field.name}."))
            continue
        declared = declarations[field.name]
        name = f"`{at}{field.name}`" if declared.in_fingerprint else f"*`{at}{field.name}`*"
        name += "\\*" if declared.on_resume else ""
        yield name, _default(field), _valid(declared), meanings[field.name]
    for section, prefix in sections:
        yield from rows(section, prefix)


def _default(field: "dataclasses.Field[Any]") -> str:
    """Return the default of a field as YAML writes it."""
    made = field.default_factory is not dataclasses.MISSING
    value = field.default_factory() if made else field.default  # type: ignore[misc]
    if value is dataclasses.MISSING or value == MISSING:
        return "required"
    return f"`{OmegaConf.to_yaml({'value': value}).removeprefix('value:').strip()}`"


def _valid(declared: Key) -> str:
    """Return the choices and the range of a key."""
    numbers = [declared.range_text()] if declared.has_range else []
    return ", ".join([*(f"`{choice}`" for choice in declared.choices), *numbers])


def table(schema: type) -> str:
    """Return the Markdown table of a schema."""
    lines = ["| key | default | valid | meaning |", "|---|---|---|---|"]
    for key, default, valid, meaning in rows(schema):
        lines.append(f"| {key} | {default} | {valid} | {meaning.replace('|', '&#124;')} |")
    return "\n".join(lines)


def page() -> str:
    """Return docs/keys.md."""
    return (
        f"{_HEAD}\n## python train.py\n\n{table(TrainConfig)}\n\n"
        f"## python inference.py\n\n{table(InferenceConfig)}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
