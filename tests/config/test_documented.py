"""Every command, key and YAML of README and docs can be typed as it stands there."""

import copy
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from geo_seg.cli import check_overrides, format_error
from geo_seg.commands import main
from geo_seg.config.augment import AugmentConfig
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.inference import InferenceConfig, parse_inference_config
from geo_seg.config.run_config import resolve_config
from geo_seg.config.signatures import signature
from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, GeoSegError, IncompatibleChoiceError
from tests.conftest import REPOSITORY, Run

FAULT = pytest.mark.fault(
    "first_hour", "README's split.by=blocks, the test by pattern that docs show: refused"
)
CONFIG = REPOSITORY / "config"
MADE = REPOSITORY / "docs" / "keys.md"  # lists the keys of the schema: tests/config/test_pages.py
PAGES = [REPOSITORY / "README.md", *sorted({*(REPOSITORY / "docs").glob("*.md")} - {MADE})]
DOTS = r"(\.\.\.|\[\.\.\.\]|<[\w ]+>|)"  # stand for a value, as in dataset.root=...
SETTING = re.compile(r"\+?[a-z_]+(\.\w+)*=.*")
NEEDED = {  # what a key that stands alone in a text is typed with
    "split": ["mode=test"],
    "init_normalize": ["init=runs/demo/run"],
    "mode=test": ["checkpoint=runs/demo/run"],
    "mode=leaderboard": ["sweep=sweeps/demo"],
    "average.decay": ["average=ema"],
    "average.start": ["average=swa"],
    "dataset.split.block": ["dataset=own", "dataset.split.by=blocks"],
    "dataset.split.balance": ["dataset=own", "dataset.split.by=blocks", "dataset.split.block=512"],
    "dataset.split.by=manifest": ["dataset=own"],
    "dataset.manifest": ["dataset.images=null", "dataset.masks=null"],
    "dataset.allow_outside": ["dataset.images=null", "dataset.masks=null", "dataset.manifest=scenes.csv"],
    "dataset.images": ["dataset=own"],
    "dataset.normalize=imagenet": ["dataset=dubai"],
    "optimizer.momentum": ["optimizer=sgd"],
    "logger.mlflow": ["logger=mlflow"],
    "logger.wandb": ["logger=wandb"],
    "hydra.sweeper": ["sweeper=optuna"],
    "min_area": ["polygons=true"],
    "simplify": ["polygons=true"],
    "hydra.launcher.partition": ["launcher=submitit_slurm"],
    "hydra.launcher.timeout_min": ["launcher=submitit_slurm"],
}
INVENTED = {"loss=squared"}  # a loss that the README shows how to write
PACKAGES = {  # of extras, by what stands in a line that needs them
    "submitit": "hydra_plugins.hydra_submitit_launcher",
    "ray": "ray",
    "openvino": "openvino",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
}


class Typed(NamedTuple):
    """What a page says can be typed.

    Attributes:
        at: page and line.
        script: train.py or inference.py.
        words: after it.
        keys: that stand there without a value, as in `dataset.sampler=`.
    """

    at: str
    script: str
    words: tuple[str, ...]
    keys: tuple[str, ...]


def passages(page: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text and whether it is a block: blocks line by line, and the code within prose."""
    prose, block, language = "", "", None
    for number, line in enumerate([*page.read_text().splitlines(), ""], 1):
        if line.startswith("```"):
            language, block = (line[3:] or "text") if language is None else None, ""
        elif language == "text":
            block += line.removeprefix("$ ")
            if block.endswith("\\"):
                block = block[:-1]
                continue
            yield number, block, True
            block = ""
        if language is not None or not line.strip():
            for found in re.finditer(r"`([^`]+)`", prose):
                before = prose[: found.start()].count("\n")
                yield number - prose.count("\n") + before, " ".join(found[1].split()), False
            prose = ""
        else:
            prose += f"{line}\n"


def setting(word: str) -> tuple[str | None, str | None]:
    """The word to be typed, and the key if the text gives it no value."""
    key, _, value = word.partition("=")
    if key in {"init", "resume", "rerun", "checkpoint", "input", "output", "sweep"}:
        value = (
            "runs/demo/run" if re.fullmatch(DOTS, value) or "$" in value else value.replace("<run>", "run")
        )
        return f"{key}={value}", None
    if re.fullmatch(DOTS, value):
        return None, None if "<" in key else key.lstrip(".")
    return word, None


def typed(at: str, script: str, words: list[str]) -> Typed:
    pairs = [setting(word) for word in words if word != "..."]
    given, keys = [word for word, _ in pairs if word], [key for _, key in pairs if key]
    for key, needed in NEEDED.items():
        if any(word == key or word.startswith((f"{key}.", f"{key}=")) for word in (*given, *keys)):
            given = [*(word for word in needed if not has(given, word)), *given]
    if "dataset=own" in given:
        given += [word for word in ("dataset.root=x", "dataset.classes=[a,b]") if not has(given, word)]
    if script == "inference.py":
        given += [word for word in ("checkpoint=x", "input=y", "output=z") if not has(given, word)]
    elif has(given, "checkpoint=") and not has(given, "mode="):
        given = ["mode=test", *given]
    return Typed(at, script, tuple(given), tuple(keys))


def has(words: list[str], wanted: str) -> bool:
    return any(word.partition("=")[0] == wanted.partition("=")[0] for word in words)


def as_script(command: re.Match[str]) -> str:
    """The script of a command of geo_seg, with the words that it stands for."""
    name = command[1]
    assert name in main._MEANINGS, command[0]
    if name not in main._COMMANDS:
        return command[0]  # not a job of Hydra: begin
    script = "inference.py" if name == "predict" else "train.py"
    return " ".join(["python", script, *main._COMMANDS[name].overrides])


def of_page(page: Path) -> Iterator[Typed]:
    for line, shown, block in passages(page):
        at = f"{page.name}:{line}"
        text = re.sub(r"^geo_seg (\w+)", as_script, shown)
        found = re.search(r"\b(train|inference)\.py\b(.*)", text)
        if found and re.match(r"(\w+=\S+ )*(python|torchrun|srun|for) ", text):
            words = shlex.split(found[2].split("; done")[0].split("--")[0], comments=True)
            yield typed(at, f"{found[1]}.py", [word for word in words if word != "-m"])
        elif not block:
            yield from of_prose(page, at, text)


def of_prose(page: Path, at: str, text: str) -> Iterator[Typed]:
    """Settings and keys that a text names without the command that they belong to."""
    of_maps, of_training = set(InferenceConfig.__dataclass_fields__), set(TrainConfig.__dataclass_fields__)
    bare = re.fullmatch(r"([a-z]+)(\.[a-z_]+)+", text)
    if bare and bare[1] in {*of_training, "split", "hydra"} and not text.endswith((".py", ".json", ".csv")):
        yield typed(at, "train.py", [f"{text}="])
        return
    try:
        words = [word for word in shlex.split(text) if word not in {"-m", "..."}]
    except ValueError:  # an apostrophe
        return
    if not words or not all(SETTING.fullmatch(word) for word in words):
        return
    key, _, value = words[0].partition("=")
    maps = page.stem == "inference" or key in of_maps - of_training
    maps = maps or (page.stem == "README" and key in of_maps)
    for choice in value.split("|"):  # none|light|strong
        yield typed(at, "inference.py" if maps else "train.py", [f"{key}={choice}", *words[1:]])


ALL = [found for page in PAGES for found in of_page(page)]
TYPED = {
    " ".join([one.script, *one.words, *one.keys]): one for one in ALL if {*one.words} - INVENTED or one.keys
}


@pytest.fixture(autouse=True, scope="module")
def clean_hydra() -> Iterator[None]:
    """Leave no state of Hydra's behind; once, as copying it takes longer than any test here."""
    before = copy.deepcopy(Singleton.get_state())
    yield
    Singleton.set_state(before)


@cache
def composed(name: str, groups: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
    """The configuration that some groups give, and Hydra's own."""
    register_schemas()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        cfg = compose(name, list(groups), return_hydra_config=True)
    own = OmegaConf.masked_copy(cfg, ["hydra"])
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, own


def is_group(override: Override) -> bool:
    return (CONFIG / override.key_or_group).is_dir()


def variants(words: tuple[str, ...]) -> list[list[str]]:
    """The runs of a sweep in which each value of each choice is there; of other lines the line itself."""
    each = []
    for word, override in zip(words, OverridesParser.create().parse_overrides(list(words)), strict=True):
        key, value = override.key_or_group, override.value()
        if isinstance(value, Glob):
            names = sorted(file.stem for file in (CONFIG / key).iterdir())
            each.append([f"{key}={value.filter(names)[0]}"])  # that each composes is tested elsewhere
        elif override.is_choice_sweep():
            each.append([f"{key}={choice}" for choice in override.sweep_string_iterator()])
        else:
            start = isinstance(value, RangeSweep | IntervalSweep)
            each.append([f"{key}={value.start}" if start else word])  # type: ignore[union-attr]
    return [
        [value or values[0] for value, values in zip(run, each, strict=True)] for run in zip_longest(*each)
    ] or [[]]


def check(script: str, words: list[str]) -> tuple[DictConfig, DictConfig]:
    """What the entry point checks before it imports torch; the configuration, and Hydra's own."""
    check_overrides(words)
    parsed = OverridesParser.create().parse_overrides(words)
    groups = tuple(word for word, override in zip(words, parsed, strict=True) if is_group(override))
    cfg, own = composed(Path(script).stem, groups)
    cfg, own = cfg.copy(), own.copy() if any("hydra." in word for word in words) else own
    for override in parsed:
        if not is_group(override):  # as Hydra does it
            key = override.key_or_group
            OmegaConf.update(own if key.startswith("hydra.") else cfg, key, override.value(), merge=True)
    if script == "inference.py":
        parse_inference_config(cfg)
    else:
        resolve_config(cfg, [word for word in words if not word.startswith("hydra.")])
    return cfg, own


def answer_to(one: Typed) -> str:
    """What geo_seg says when a line is typed, "" for nothing; of a sweep to the first run that is wrong."""
    for words in variants(one.words):
        try:
            cfg, own = check(one.script, words)
        except IncompatibleChoiceError:
            continue  # a sweep over all choices leaves it out
        except (GeoSegError, HydraException, OmegaConfBaseException) as error:
            return format_error(error)
        for key in one.keys:
            section, _, name = key.rpartition(".")
            cfg = own if key.startswith("hydra.") else cfg
            there = OmegaConf.select(cfg, section) if section else cfg
            known = [*(there or ())]
            if "_target_" in known and (options := signature(there["_target_"])):
                known += options.parameters  # that a YAML needn't name
            if name not in known and not (CONFIG / key).is_dir():
                return f"{key}: unknown key"
    return ""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a finished run, under all names that the pages give it."""
    root = tmp_path_factory.mktemp("finished")
    for name in ("run", "2026-11-25_10-00-00_unet_cross_entropy"):
        write_run(root / "runs" / "demo" / name, [])
    for page in PAGES:
        for block in blocks_of(page, "python"):
            if named := re.match(r"# (\w+\.py)\b", block):  # a module of the user's that a command names
                (root / named[1]).write_text(f"import numpy\nimport pathlib\nimport torch\n{block}")
    return root


def write_run(folder: Path, words: list[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(check("train.py", words)[0]))


@cache
def answers_of_the_pages() -> dict[str, str]:
    """By page and line of a command, the answer that the page shows below it."""
    return {
        f"{page.name}:{number}": following.removeprefix("error: ")
        for page in PAGES
        for number, following in enumerate(page.read_text().splitlines()[1:], 1)
        if following.startswith("error: ")
    }


@FAULT
@pytest.mark.parametrize("line", TYPED)
def test_what_a_page_says_can_be_typed_is_taken(
    line: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    monkeypatch.syspath_prepend(finished)
    for mark, package in PACKAGES.items():
        if mark in line and find_spec(package) is None:
            pytest.skip(f"needs {package}")
    if "torchrun" in line:
        monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun sets it
    one = TYPED[line]
    expected = answers_of_the_pages().get(one.at, "taken")
    said = answer_to(one) or "taken"
    assert said == expected or (expected.endswith("...") and said.startswith(expected[:-3])), one.at


SPLITS_OF_RUNS = {
    "fraction": "val=0.2 test=0.2",
    "groups": "val=0.2 test=0.2 group=x",
    "table": "val=0.2 table=tiles.csv column=place",
    "blocks": "by=blocks block=512 val=0.2 buffer=64",
    "list": "by=list train=train.txt val=val.txt test=test.txt",
    "pattern": "by=pattern train=[a/*] val=b/* test=c/*",
    "manifest": "by=manifest val=0.2",
}


@FAULT
@pytest.mark.parametrize("data", [[], ["dataset=own", "dataset.classes=[a,b]"]])
@pytest.mark.parametrize("kind", SPLITS_OF_RUNS)
def test_a_run_of_any_split_is_tested_on_the_images_of_a_folder(
    kind: str, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["dataset=own", "dataset.root=x", "dataset.classes=[a,b]"]
    words += [f"dataset.split.{word}" for word in f"val=null test=null {SPLITS_OF_RUNS[kind]}".split()]
    write_run(tmp_path / "runs" / "demo" / "run", words)
    monkeypatch.chdir(tmp_path)
    [line] = [
        one for one in ALL if one.at.startswith("evaluation.md") and "dataset.split.test=*" in one.words
    ]
    check("train.py", [*data, *line.words])


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("split.by=blocks", "split is one value, with no keys below it; did you mean 'dataset.split.by'?"),
        ("+split.block=9", "split is one value, with no keys below it; did you mean 'dataset.split.block'?"),
        ("seed.x=1", "seed is one value, with no keys below it; expected seed=..."),
        (
            "average.decay.x=1",
            "average.decay is one value, with no keys below it; expected average.decay=...",
        ),
        (
            "dataset.bands.x=3",
            "dataset.bands is one value, with no keys below it; expected dataset.bands=...",
        ),
        (
            "dataset.classes.x=3",
            "dataset.classes is one value, with no keys below it; expected dataset.classes=...",
        ),
        ("window.x=1", "window is one value, with no keys below it; expected window=..."),
    ],
)
@FAULT
def test_a_key_below_a_single_value_is_answered_with_the_one_that_is_meant(word: str, answer: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_overrides([word])
    assert format_error(error.value) == f"{word}: {answer}"


@FAULT
def test_a_key_below_a_value_of_an_open_section_is_answered_and_an_entry_of_a_list_is_taken() -> None:
    one = Typed("", "train.py", ("model.encoder.lr_factor=3",), ())
    assert answer_to(one) == "model.encoder.lr_factor: model.encoder is one value, with no keys below it"
    assert answer_to(one._replace(words=("dataset.classes.0.name=meadow",))) == ""


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@FAULT
@pytest.mark.parametrize(
    "page",
    # the parts of extending.md are built by test_extending.py
    [page for page in PAGES if blocks_of(page, "yaml") and page.stem != "extending"],
    ids=lambda page: page.name,
)
def test_the_keys_of_a_yaml_in_a_page_are_those_of_the_configuration(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page, "yaml"):
        content = yaml.safe_load(block)
        if "root" in content:  # a whole data set
            command = re.search(r"python train\.py --config-dir (\S+) (.*)", block)
            assert command and content["name"] in command[2]
            (tmp_path / command[1] / "dataset").mkdir(parents=True)
            (tmp_path / command[1] / "dataset" / f"{content['name']}.yaml").write_text(block)
            register_schemas()
            with initialize_config_dir(str(CONFIG), version_base="1.3"):
                given = [f"hydra.searchpath=[file://{tmp_path / command[1]}]", *command[2].split()]
                resolve_config(compose("train", given), command[2].split())
        else:
            schemas = [s for s in (DatasetConfig, AugmentConfig) if {*content} <= {*s.__dataclass_fields__}]
            assert schemas, f"{page.name}: {', '.join(content)}"
            OmegaConf.merge(OmegaConf.structured(schemas[0]), content)


@FAULT
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_targets_scripts_and_their_options_in_a_page_are_there(page: Path) -> None:
    text = page.read_text()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = re.findall(r'pip install (?:-e )?"(?:geo-seg|\.)\[([\w,]+)\]"', text)
    assert {name for listed in extras for name in listed.split(",")} <= {*project["optional-dependencies"]}
    targets = re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)
    assert {*targets} <= {*re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)}
    for script, options in re.findall(r"((?:benchmarks|experiment)/\w+\.py)([^`\n]*)", text):
        source = (REPOSITORY / script).read_text()
        for option in re.findall(r"--\w+", options):
            assert f'"{option}"' in source, f"{page.name}: {script} {option}"


def words_of(page: str, *parts: str) -> list[str]:
    """The command of a page that holds some words, with what it leaves open."""
    [one] = {one.words for one in ALL if one.at.startswith(f"{page}.md:") and {*parts} <= {*one.words}}
    return [*one]


@pytest.mark.slow
@FAULT
def test_commands_of_the_pages_run_from_training_to_the_map(
    run: Run, small_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").symlink_to(small_root)
    own = [f"dataset.root={small_root}", "dataset.classes=[low,middle,high]"]
    short = ["dataset.window=32", "dataset.batch_size=4", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    blocks = words_of("data", "dataset.split.by=blocks", "dataset.split.block=1024")
    sized = ["dataset.split.block=32", "dataset.split.buffer=0", "dataset.window=16"]
    tested = [
        word.replace("/other", "other")
        for word in words_of("evaluation", "split=test", "dataset.split.test=*")
    ]
    mapped = [word.replace("scenes/", "other/images") for word in words_of("README", "input=scenes/")]
    for line in (
        ["train.py", *words_of("data", "mode=check", "dataset=own"), *own, *short, "hydra.run.dir=checked"],
        ["train.py", "dataset=own", *own, *short, "model.encoder=resnet18", "hydra.run.dir=runs/demo/run"],
        ["train.py", *blocks, *own, *short, *sized, "model.encoder=resnet18", "hydra.run.dir=blocks"],
        ["train.py", *tested],
        ["inference.py", *mapped],
    ):
        done = run(*line)
        assert (done.returncode, done.stderr) == (0, ""), line
    [folder] = (tmp_path / "runs" / "demo").glob("run_test_*")
    scores = json.loads((folder / "metrics.json").read_text())
    assert "test" in scores and "val" not in scores
    assert len([*(tmp_path / "maps").glob("*_classes.tif")]) == 6
