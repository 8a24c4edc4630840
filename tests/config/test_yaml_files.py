"""What is wrong in a YAML file is answered in one line, with the file and the line of it."""

import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from geo_seg.cli import _translate_hydra_error, format_error
from geo_seg.config import training_checks, yaml_files
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import ConfigError, GeoSegError
from geo_seg.runtime.cache_dir import cache_dir
from tests.conftest import REPOSITORY, Run, small_overrides

CONFIG = REPOSITORY / "config"
SHIPPED = sorted(file for file in CONFIG.glob("*/*.yaml") if file.parent.name not in {"launcher", "sweeper"})
OWN = """name: rivers
root: data
images: images/*.tif
masks: masks/*.tif
classes:
  - {name: land, color: "#d9c77e"}
  - name: water
    color: "#3b7dbf"
"""
EXAMPLE = "tab, key twice, control character, a number for a file, color without quotes, class: for classes:"


@pytest.fixture(autouse=True)
def clean_hydra(hydra_restore_singletons: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no state of Hydra's behind, and no words of pytest's on the command line."""
    monkeypatch.setattr("sys.argv", ["train.py"])


def answer_to(folder: Path, *overrides: str) -> str:
    """The line that a user would read of what lies in a folder for --config-dir; "" when all is well."""
    register_schemas()
    yaml_files.record_yaml_files()
    try:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            parse_train_config(compose("train", [f"hydra.searchpath=[file://{folder}]", *overrides]))
    except (GeoSegError, HydraException, OmegaConfBaseException) as error:
        return format_error(error)
    except ValueError as error:  # of Hydra's, for what isn't its list of defaults
        return format_error(_translate_hydra_error(error))
    return ""


def answer_to_text(folder: Path, text: str, group: str = "dataset") -> str:
    file = folder / group / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return answer_to(folder, f"{group}=mine").replace(str(file), "FILE")


@pytest.mark.fault("config", EXAMPLE)
@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        (
            "root: data",
            "root: data\n\tbands: [1]",
            "FILE line 3: not YAML (found character '\\t' that cannot",
        ),
        ("root: data", "root: data\nroot: more", "FILE line 3: not YAML (found duplicate key root)"),
        ("root: data", "root: da\x01ta", "FILE line 2: not YAML (unacceptable character #x0001"),
        (
            "root: data",
            "root: C: data",
            "FILE line 2: not YAML (mapping values are not allowed here; a text wi",
        ),
        ("root: data", "root: {a: 1}", "FILE line 2: dataset.root={'a': 1}: expected a text, got a mapping"),
        (
            "root: data",
            "root: ''",
            "dataset.root='': expected a non-empty text without NUL characters (FILE li",
        ),
        ("root: data", 'root: "a\\0b"', "dataset.root='a\\x00b': expected a non-empty text without NUL"),
        (
            "root: data",
            "root: data\nwindow: wide",
            "FILE line 3: dataset.window='wide': Value 'wide' of type",
        ),
        (
            "root: data",
            "root: data\nsplit: [1]",
            "FILE line 3: dataset.split=[1]: expected a mapping, got a l",
        ),
        (
            "root: data",
            "root: data\nsplit: {vall: 1}",
            "FILE line 3: dataset.split.vall: unknown key 'vall'",
        ),
        (
            "root: data",
            "root: data\nwindow: 1000000000",
            "dataset.window=1000000000: expected 16 to 16384 (FI",
        ),
        (
            "root: data",
            "root: data\n1: a",
            "FILE line 3: dataset.1: unknown key '1'; available: allow_lea",
        ),
        (
            "classes:",
            "class:",
            "FILE line 5: dataset.class: unknown key 'class'; did you mean 'classes'? Available: allow_leaka",
        ),
        (
            'color: "#3b7dbf"',
            "color: #3b7dbf",
            "dataset.classes[1].color=None of 'water': expected \"#rrggbb\", in quotes (FILE line 8, where # "
            "begins a comment: it needs quotes)",
        ),
        (
            '{name: land, color: "#d9c77e"}',
            "{name: land, color: #d9c77e}",
            "FILE line 6: not YAML (here # begins a comment: a colour needs quotes)",
        ),
        (
            "name: water",
            "nam: water",
            "dataset.classes[1]: expected a name or a mapping with a name, got {'nam'",
        ),
        ("name: water", "name:", "dataset.classes[1].name=None: expected a text (FILE line 7)"),
        (
            "name: water",
            "name: no",
            "dataset.classes[1].name=False: expected a text; YAML reads yes, no, on and",
        ),
        ("name: water", "name: [a, b]", "dataset.classes[1].name=['a', 'b']: expected a text (FILE line 7)"),
        ("name: water", "name: water\n    weight: -1", "dataset.classes[0]"),
    ],
)
def test_a_mistake_in_the_yaml_of_a_data_set_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, answer: str
) -> None:
    found = answer_to_text(tmp_path, OWN.replace(old, new))
    assert found.startswith(answer) or (
        answer == "dataset.classes[0]" and "give every class a weight" in found
    )
    assert "\n" not in found


@pytest.mark.fault("config", EXAMPLE)
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5", "FILE: expected a mapping of keys and values (Invalid loaded object type: int)"),
        ("defaults: 5", "FILE: Invalid defaults list in 'dataset/mine', defaults must be a list (got int)"),
        ("defaults: [[null]]", "FILE: Unsupported type in defaults : ListConfig"),
        ("- a\n- b", "FILE: expected a mapping of keys and values, got a list"),
        ("name: &a [*a]", "FILE: expected a mapping of keys and values ("),
        (
            "name: !!python/name:os.system x",
            "FILE line 1: not YAML (could not determine a constructor for the",
        ),
        (
            "classes: {a: 1, b: 2}",
            "FILE line 1: dataset.classes={'a': 1, 'b': 2}: expected a list, got a mapping",
        ),
    ],
)
def test_a_yaml_file_that_holds_something_else_is_one_line(tmp_path: Path, text: str, answer: str) -> None:
    assert answer_to_text(tmp_path, text).startswith(answer)


@pytest.mark.fault("config", EXAMPLE)
def test_a_yaml_file_that_is_no_utf8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_bytes(b"name: \xff\n")
    assert answer_to(tmp_path, "dataset=mine").endswith("mine.yaml: not UTF-8 text; save it as UTF-8")


@pytest.mark.fault("config", "class weights -1, NaN or text; class names null or a list")
@pytest.mark.parametrize("weight", ["-1", ".nan", ".inf", "heavy", "[1]", "true"])
def test_a_class_weight_that_is_no_weight_is_refused_with_its_line(tmp_path: Path, weight: str) -> None:
    rows = OWN.replace("name: water", f"name: water\n    weight: {weight}").replace(
        "land,", "land, weight: 1,"
    )
    found = answer_to_text(tmp_path, rows)
    assert found.startswith("dataset.classes[1].weight=")
    assert found.endswith(": expected a number, 0 or more (FILE line 8)")


@pytest.mark.fault("config", "a YAML in the wrong folder: where it looked")
def test_a_yaml_file_in_the_wrong_folder_is_found_for_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rivers.yaml").write_text(OWN)
    answer = answer_to(tmp_path, "dataset=rivers")
    assert f"{tmp_path / 'rivers.yaml'} is in no folder dataset: move it into one" in answer
    assert answer.endswith(f"looked in {CONFIG / 'dataset'} and {tmp_path / 'dataset'}")
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    (tmp_path / "rivers.yaml").rename("dataset/lakes.yaml")
    assert f"is found with --config-dir {tmp_path / 'mine'} dataset=lakes" in answer_to(
        tmp_path, "dataset=lakes"
    )


def _paths(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from _paths(value, (*at, key))


WRONG = (
    None,
    -1,
    1e30,
    float("nan"),
    "",
    "abc",
    True,
    [],
    {"a": 1},
    "${nope}",
    "???",
    10**30,
    "a\tb",
    "x\x07",
)
KINDS = ("dropped", "doubled", "misspelt", "another type", "a control character", "a tab", "cut")


def _broken(text: str, kind: str) -> Iterator[str]:
    """A YAML file with one thing wrong with it, in all places."""
    lines = text.splitlines()
    if kind in {"doubled", "a control character", "a tab", "cut"}:
        for number, line in enumerate(lines):
            changed = {
                "doubled": [line, line],
                "a control character": [f"{line} \x01"],
                "a tab": [f"\t{line}"],
                "cut": [line[: len(line) // 2]],
            }
            yield "\n".join([*lines[:number], *changed[kind], *lines[number + 1 :]])
        return
    head = "".join(f"{line}\n" for line in lines if line.startswith("# @package"))
    for path in _paths(yaml.safe_load(text)):
        for wrong in WRONG if kind == "another type" else (None,):
            content = yaml.safe_load(text)
            inner = content
            for key in path[:-1]:
                inner = inner[key]
            if kind == "another type":
                inner[path[-1]] = wrong
            elif isinstance(path[-1], str):
                value = inner.pop(path[-1])
                if kind == "misspelt":
                    inner[f"{path[-1]}x"] = value
            else:
                del inner[path[-1]]
            yield head + yaml.safe_dump(content, sort_keys=False)


def _answered(file: Path, folder: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of the texts makes a configuration, or one line; anything else is an exception here."""
    monkeypatch.setattr(training_checks, "find_spec", lambda package: True)  # packages that loggers need
    group = file.parent.name
    for text in texts:
        mine = folder / group / "mine.yaml"
        mine.parent.mkdir(exist_ok=True)
        mine.write_text(text, encoding="utf-8")
        more = ["loss=dice"] if group == "dataset" and "mode: binary" in text else []
        answer = answer_to(folder, f"{group}=mine", *more)
        assert "\n" not in answer, text


def _named(file: Path) -> str:
    return f"{file.parent.name}-{file.stem}"


@pytest.mark.fault(
    "config", "fuzzed YAML: each shipped file with something dropped, doubled, misspelt, retyped"
)
@pytest.mark.parametrize("file", SHIPPED, ids=_named)
def test_a_shipped_yaml_file_with_something_wrong_is_one_line_or_a_configuration(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = zlib.crc32(_named(file).encode())
    texts = list(_broken(file.read_text(encoding="utf-8"), KINDS[seed % len(KINDS)]))
    _answered(file, tmp_path, texts[seed % max(len(texts), 1) :][:1], monkeypatch)


@pytest.mark.slow
@pytest.mark.fault(
    "config", "fuzzed YAML: each shipped file with something dropped, doubled, misspelt, retyped"
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", SHIPPED, ids=_named)
def test_whatever_is_wrong_in_a_shipped_yaml_file_is_one_line_or_a_configuration(
    file: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = list(_broken(file.read_text(encoding="utf-8"), kind))
    first = zlib.crc32(f"{_named(file)} {kind}".encode()) % max(len(texts), 1)
    tried = (texts[first:] + texts[:first])[:: max(len(texts) // 2, 1)][:2]  # all of them take an hour
    _answered(file, tmp_path, tried, monkeypatch)


@pytest.mark.fault("config", "LOCAL_RANK=x, a working folder that is gone, output=''")
@pytest.mark.parametrize(
    ("words", "environment", "answer"),
    [
        (
            ["seed=1"],
            {"LOCAL_RANK": "x"},
            "LOCAL_RANK=x: expected a whole number in this environment varia",
        ),
        (["hydra.run.dir="], {}, "hydra.run.dir=: expected the folder that the run goes to"),
    ],
)
def test_what_the_surroundings_get_wrong_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], environment: dict[str, str], answer: str
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    result = run("train.py", *words)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {answer}")
    assert result.stderr.count("\n") == 1


@pytest.mark.fault("config", "a user without home folder or passwd entry")
def test_a_user_without_a_home_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(
        ConfigError, match=r"^~/.cache/geo_seg: there is no home folder to begin at; set HOME .or"
    ):
        cache_dir(None)
    assert cache_dir("/kept/here") == Path("/kept/here")


@pytest.mark.fault("config", "LOCAL_RANK=x, a working folder that is gone, output=''")
def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && exec {sys.executable} {REPOSITORY / 'train.py'}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: the working folder no longer exists; change to another one\n"


@pytest.mark.fault("first_hour", "a wrong checkpoint path or band name is answered after torch is imported")
@pytest.mark.parametrize(
    ("script", "words", "answer"),
    [
        (
            "inference.py",
            ["checkpoint=gone/run", "input=x", "output=y"],
            "gone/run: no such checkpoint; exp",
        ),
        (
            "train.py",
            ["mode=test", "checkpoint=gone.ckpt"],
            "gone.ckpt: no such checkpoint; expected a run",
        ),
        (
            "train.py",
            ["dataset.bands=[red]"],
            "{root}/images/s0.tif: no band 'red'; it has 2 (numbers 1 to 2",
        ),
        ("train.py", ["dataset.root=gone"], "gone: no such folder; set dataset.root="),
    ],
)
def test_a_wrong_path_or_band_is_answered_before_torch_is_imported(
    run: Run, small_root: Path, tmp_path: Path, script: str, words: list[str], answer: str
) -> None:
    data = [*small_overrides(small_root), "dataset.images=images/s0.tif", "dataset.masks=masks/s0.tif"]
    given = words if len(words) > 1 else [*data, *words]
    (tmp_path / "probe.py").write_text(
        "import runpy, sys\n"
        f"sys.argv = [{script!r}, *{given!r}]\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(REPOSITORY / script)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules)\n"
    )
    result = run(str(tmp_path / "probe.py"))
    assert result.stdout.split() == ["2", "False"]
    assert result.stderr.startswith(f"error: {answer.format(root=small_root)}")
    assert result.stderr.count("\n") == 1
