"""The command geo_seg: the same jobs as train.py and inference.py, from any folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geo_seg.config.hydra_setup import portable_command, shell_command
from geo_seg.runtime import program
from tests.conftest import REPOSITORY, Run

COMMANDS = ("begin", "train", "predict", "check", "test", "leaderboard")
Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def geo_seg(tmp_path: Path) -> Callable[..., Ended]:
    """Runs `python -m geo_seg` in an empty folder."""

    def start(*words: str, **variables: str) -> Ended:
        return subprocess.run(
            [sys.executable, "-m", "geo_seg", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return start


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_alone_it_says_what_there_is(geo_seg: Callable[..., Ended], words: list[str]) -> None:
    ended = geo_seg(*words)
    assert (ended.returncode, ended.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in ended.stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["trian"], "trian: unknown command 'trian'; did you mean 'train'?"),
        (["loss=focal"], "loss=focal: expected a command before it, as in `geo_seg train loss=focal`"),
        (["check", "mode=train"], "mode=train: `geo_seg check` stands for mode=check; leave one of them out"),
        (["train", "loss=focl"], "loss=focl: unknown loss 'focl'; did you mean 'focal'?"),
        (["predict", "checkpoint=x", "input=x", "output=x", "ttaa=d4"], "did you mean 'tta'?"),
        (["train", "-m", "mode=test"], "one command for each: python -m geo_seg train mode=test ..."),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(
    geo_seg: Callable[..., Ended], tmp_path: Path, words: list[str], answer: str
) -> None:
    ended = geo_seg(*words)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ") and answer in ended.stderr
    assert ended.stderr.count("\n") == 1 and ended.stdout == ""
    assert not list(tmp_path.iterdir())


def test_it_shows_its_version(geo_seg: Callable[..., Ended]) -> None:
    assert geo_seg("--version").stdout == "geo_seg 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["train", "loss=focal"], ["train.py", "loss=focal"]),
        (["check", "seed=1"], ["train.py", "mode=check", "seed=1"]),
        (["test", "checkpoint=x"], ["train.py", "mode=test", "checkpoint=x"]),
        (["leaderboard", "sweep=x"], ["train.py", "mode=leaderboard", "sweep=x"]),
        (["predict", "input=x"], ["inference.py", "input=x"]),
    ],
)
def test_a_command_composes_what_its_script_does(
    geo_seg: Callable[..., Ended], run: Run, words: list[str], script: list[str]
) -> None:
    ended = geo_seg(*words, "--cfg", "job")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == run(*script, "--cfg", "job").stdout


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"], ["train", "loss=focl"]])
def test_what_needs_no_training_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['geo_seg', *{words!r}]\n"
        "from geo_seg.commands.main import main\n"
        "try: main()\n"
        "except SystemExit: print([n for n in ('torch', 'numpy', 'rasterio') if n in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("geo_seg ", " ".join(COMMANDS)),
        ("geo_seg tr", "train"),
        ("geo_seg train loss=foc", "loss=focal loss=focal_tversky"),
        ("geo_seg train loss=focal loss.ga", "loss.gamma="),
        ("geo_seg check dataset=de", "dataset=deepglobe dataset=demo"),
        ("geo_seg predict tt", "tta="),
        ("geo_seg trian lo", ""),
    ],
)
def test_a_shell_completes_commands_groups_choices_and_keys(
    geo_seg: Callable[..., Ended], line: str, expected: str
) -> None:
    ended = geo_seg("-sc", "query=bash", COMP_LINE=line)
    assert (ended.returncode, ended.stderr, ended.stdout.strip()) == (0, "", expected)


@pytest.mark.parametrize("words", [["-sc", "install=bash"], ["train", "-sc", "install=bash"]])
def test_a_shell_is_given_what_it_needs_to_complete(geo_seg: Callable[..., Ended], words: list[str]) -> None:
    assert "complete -o nospace" in geo_seg(*words).stdout


@pytest.mark.parametrize("flag", [[], ["--config-dir", "config"]], ids=["beside", "given"])
def test_yaml_files_beside_the_user_are_choices_and_one_that_shadows_is_told_once(
    geo_seg: Callable[..., Ended], tmp_path: Path, flag: list[str]
) -> None:
    for name, text in {
        "loss/sharp.yaml": "name: focal\ngamma: 7\n",
        "loss/focal.yaml": "name: focal\ngamma: 5\n",
        "model/unet.yaml": (REPOSITORY / "config/model/unet.yaml").read_text(),
        "train.yaml": "another: program's\n",
    }.items():
        (tmp_path / "config" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / name).write_text(text)
    ended = geo_seg("train", "loss=sharp", "--cfg", "job", *flag)
    assert (ended.stderr, "gamma: 7" in ended.stdout) == ("", True)
    ended = geo_seg("train", "loss=focal", "--cfg", "job", *flag)
    assert "gamma: 5" in ended.stdout
    shown = tmp_path / "config" / "loss" / "focal.yaml"
    assert ended.stderr == f"note: {shown} is read in place of geo_seg's own loss=focal\n"


def test_commands_that_are_printed_are_those_that_were_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEO_SEG_PROGRAM", raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/geo_seg", "train", "seed=1"])
    program.set_program(is_script=False)
    assert shell_command("train", resume="a b") == "geo_seg train 'resume=\"a b\"'"
    assert portable_command("predict") == "geo_seg predict"
    assert program.typed_here() == "geo_seg train seed=1"
    assert program.torchrun_words("predict") == "-m geo_seg predict"
    assert program.process_words("train")[1:] == ["-P", "-m", "geo_seg", "train"]
    program.set_program(is_script=True)
    monkeypatch.setattr(sys, "argv", [str(REPOSITORY / "train.py"), "seed=1"])
    assert portable_command("predict") == "python inference.py"
    assert program.torchrun_words("predict") == "inference.py"
    assert program.process_words("train")[1:] == [str(REPOSITORY / "train.py")]
