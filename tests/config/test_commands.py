"""A command that is printed means what it says when it is typed in."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from geo_seg.config.hydra_setup import shell_command
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    "path",
    [
        "runs/a_b-1/x.tif",
        "a b/c",
        "it's",
        'a "b" c',
        "Zürich (1)",
        "[x]",
        "a,b",
        "~x",
        "a=b",
        "a\\\\",
        "$HOME",
        "1.5",
    ],
)
def test_shell_and_hydra_read_a_path_from_a_command_as_it_is(path: str) -> None:
    *_, given = shlex.split(shell_command("train", resume=path))
    found = OverridesParser.create().parse_overrides([given])[0]
    assert found.key_or_group == "resume"
    assert str(found.value()) == path


def test_a_script_is_named_by_its_path_outside_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert shell_command("predict", input="a.tif") == "python inference.py input=a.tif"
    monkeypatch.chdir(tmp_path)
    assert shell_command("predict") == f"python {REPOSITORY / 'inference.py'}"
