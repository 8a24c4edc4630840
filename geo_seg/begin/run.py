"""`geo_seg begin <folder>`: write the YAML of a data set, and say what of it is a guess."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from geo_seg.begin.draft import Choices, plan_dataset
from geo_seg.begin.listing import is_text, list_folder
from geo_seg.begin.yaml_text import Plan, counted, printable
from geo_seg.errors import ConfigError, DataError, GeoSegError
from geo_seg.runtime.files import atomic_write
from geo_seg.runtime.process import setup_process
from geo_seg.runtime.program import config_dir


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 0, or 2 after an error in one line.

    Args:
        argv: the words after `begin`.
    """
    parser = argparse.ArgumentParser(
        prog="geo_seg begin",
        description="Writes config/dataset/<name>.yaml for the images and labels in a folder.",
    )
    parser.add_argument("folder", type=Path, help="of images and labels, in any usual layout")
    parser.add_argument("--name", help="of the data set; default: that of the folder")
    parser.add_argument(
        "--images", help="file, folder or glob below the folder, if several could be the images"
    )
    parser.add_argument("--masks", help="likewise of the masks or the vector file")
    parser.add_argument("--attribute", help="of polygons, if several could be the classes")
    words = parser.parse_args([*argv])
    setup_process()
    try:
        run(words.folder, words.name, words.images, words.masks, words.attribute)
    except GeoSegError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0


def run(
    folder: Path,
    name: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    attribute: str | None = None,
) -> Path:
    """Write the YAML for a folder below config/dataset of the working folder, and print what it rests on.

    Args:
        folder: of images and labels.
        name: of the data set; None for that of the folder.
        images: file, folder or glob below the folder that the images are in; None chooses.
        masks: likewise of the labels.
        attribute: of polygons; None chooses.

    Returns:
        The path of the YAML.

    Raises:
        ConfigError: a YAML of that name exists, or the name is none.
        DataError: there is nothing to train on; says what was looked for.
    """
    chosen = _name_of(folder, name)
    file = Path("config") / "dataset" / f"{chosen}.yaml"
    listing = list_folder(folder)
    if "${" in str(listing.root) or not is_text(str(listing.root)):
        raise DataError(f"{listing.root}: cannot stand in a YAML (a ${{, or no UTF-8); rename the folder")
    choices = Choices(chosen, images, masks, attribute)
    plan = plan_dataset(listing, choices, str(file.absolute().with_suffix("")))
    _write(file, plan)
    print("\n".join(_report(file, chosen, plan)))
    return file


def _name_of(folder: Path, name: str | None) -> str:
    """Return the name of the data set, checked: nothing is overwritten or shadowed.

    Raises:
        ConfigError: there is such a YAML, or the name is none.
    """
    chosen = name or re.sub(r"\W+", "_", folder.resolve().name).strip("_").lower() or "data"
    if not re.fullmatch(r"\w[\w-]*", chosen):
        raise ConfigError(f"--name {chosen}: expected letters, digits, - and _")
    file = Path("config") / "dataset" / f"{chosen}.yaml"
    other = f"{chosen}_own"
    if file.exists():
        raise ConfigError(
            f"{file}: exists and is left as it is; take another name, such as --name {chosen}_2"
        )
    if (config_dir() / "dataset" / file.name).exists():
        raise ConfigError(
            f"{chosen}: geo_seg has a data set of that name; take another one, such as --name {other}"
        )
    return chosen


def _write(file: Path, plan: Plan) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for end, content in plan.tables.items():
            atomic_write(file.with_name(f"{file.stem}{end}"), content)
        atomic_write(file, plan.draft.text())
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written ({error.strerror}); change to a folder of your own"
        ) from error


def _report(file: Path, name: str, plan: Plan) -> list[str]:
    lines = [f"{file}: {counted(plan.scenes, 'scene')}"]
    for title, entries in (
        ("Sure", plan.draft.sure),
        ("Guesses", plan.draft.guesses),
        ("To know", plan.notes),
    ):
        if entries:
            lines += ["", f"{title}:", *(f"  {printable(entry)}" for entry in entries)]
    loss = plan.loss[0]
    return [
        *lines,
        "",
        "Next, from this folder:",
        f"  geo_seg check dataset={name}              what is wrong with the data, before training",
        f"  geo_seg train dataset={name} loss={loss}",
    ]
