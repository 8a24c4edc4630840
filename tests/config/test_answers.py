"""Every typo is answered in one line, with a non-zero exit, before torch is imported."""

import pathlib
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiment.short_cpu import CHANGES, SETS, SHORT
from geo_seg.cli import format_error, run_main
from geo_seg.config import training_checks
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.inference import parse_inference_config
from geo_seg.config.signatures import registrations, signature
from geo_seg.config.training_checks import parse_train_config, registered_models
from geo_seg.errors import ConfigError, GeoSegError
from tests.conftest import REPOSITORY, Run

CONFIG = REPOSITORY / "config"
GROUPS = {
    "model": sorted(p.stem for p in (CONFIG / "model").glob("*.yaml")),
    "dataset": sorted(p.stem for p in (CONFIG / "dataset").glob("*.yaml") if p.stem != "own"),
    "optimizer": sorted(p.stem for p in (CONFIG / "optimizer").glob("*.yaml")),
    "scheduler": sorted(p.stem for p in (CONFIG / "scheduler").glob("*.yaml")),
    "trainer": sorted(p.stem for p in (CONFIG / "trainer").glob("*.yaml")),
    "augment": sorted(p.stem for p in (CONFIG / "augment").glob("*.yaml")),
    "callbacks": sorted(p.stem for p in (CONFIG / "callbacks").glob("*.yaml")),
    "average": sorted(p.stem for p in (CONFIG / "average").glob("*.yaml")),
    "logger": sorted(p.stem for p in (CONFIG / "logger").glob("*.yaml")),
    "launcher": ["process"],  # the others need plugins
    "sweeper": sorted(p.stem for p in (CONFIG / "sweeper").glob("*.yaml")),
    "experiment": sorted(p.stem for p in (CONFIG / "experiment").glob("*.yaml")),
}

BINARY = {"inria", "inria_full", "amazon", "massachusetts"}


@pytest.fixture(autouse=True)
def clean_hydra(hydra_restore_singletons: object) -> None:
    """Leaves no state of Hydra's behind."""


def answer_to(*overrides: str, name: str = "train") -> str:
    """The line that a user would read; "" when all is well."""
    register_schemas()
    check = parse_train_config if name == "train" else parse_inference_config
    try:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            check(compose(name, list(overrides)))  # type: ignore[operator]
    except (GeoSegError, HydraException, OmegaConfBaseException) as error:
        return format_error(error)
    return ""


@pytest.mark.parametrize(("group", "choice"), [(g, c) for g, choices in GROUPS.items() for c in choices])
def test_every_yaml_composes_and_passes_the_checks(
    group: str, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_checks, "find_spec", lambda package: True)  # packages that loggers need
    override = f"+experiment={choice}" if group == "experiment" else f"{group}={choice}"
    assert answer_to(override.lstrip("+"), *(["loss=dice"] if choice in BINARY else [])) == ""


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_logger_whose_package_is_missing_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_checks, "find_spec", lambda package: None)
    line = f"logger={name}: not installed; pip install 'geo-seg[{name}]'"
    assert answer_to(f"logger=[csv,{name}]") == line


def test_a_root_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/mine")
    register_schemas()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = parse_train_config(compose("train", ['dataset.root="~/rivers"']))
    assert config.dataset.root == "/home/of/mine/rivers"


def test_paths_of_maps_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/mine")
    register_schemas()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        given = ['checkpoint=["~/run",x]', 'input="~/a.tif"', 'output="~/maps"', 'labels="~/l.gpkg"']
        config = parse_inference_config(compose("inference", given))
    assert config.checkpoint == ["/home/of/mine/run", "x"]
    assert (config.input, config.output) == ("/home/of/mine/a.tif", "/home/of/mine/maps")
    assert config.labels == "/home/of/mine/l.gpkg"


@pytest.mark.parametrize("loss", sorted(p.stem for p in (CONFIG / "loss").glob("*.yaml")))
def test_every_loss_passes_the_checks_in_a_mode_that_it_has(loss: str) -> None:
    modes = registrations((REPOSITORY / "losses").glob("*.py"), "register")[loss].arguments["modes"]
    assert answer_to(f"loss={loss}", f"dataset={'demo' if 'multiclass' in modes else 'inria'}") == ""


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_every_change_that_the_search_for_the_recipe_tries_is_an_option(change: str) -> None:
    assert answer_to("experiment=short_cpu", "dataset=dubai", *SETS["dubai"], *SHORT, *CHANGES[change]) == ""


def test_a_yaml_exists_for_every_loss_and_every_model() -> None:
    assert {p.stem for p in (CONFIG / "loss").glob("*.yaml")} == set(
        registrations((REPOSITORY / "losses").glob("*.py"), "register")
    )
    assert set(GROUPS["model"]) == set(registered_models())


@pytest.mark.parametrize("name", sorted(registered_models()))
def test_the_yaml_of_a_model_lists_every_option_of_the_architecture(name: str) -> None:
    keys = set(yaml.safe_load((CONFIG / "model" / f"{name}.yaml").read_text())) - {
        "name",
        "encoder",
        "weights",
    }
    registered = registered_models()[name]
    found = signature(registered.arguments["of"]) if "of" in registered.arguments else None
    filled = {"in_channels", "classes", "activation", "aux_params", "encoder_name", "encoder_weights"}
    options = {*registered.options.parameters} | (set(found.parameters) if found else set())
    assert keys == options - filled - {"of", "encoder", "weights"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("loss=focl", ("loss=focl", "'focal'")),
        ("model=unett", ("model=unett", "'unet'")),
        ("dataset=dmo", ("dataset=dmo", "'demo'")),
        ("optimizer=adamm", ("optimizer=adamm", "'adam")),
        ("loss.smooth_factr=2", ("loss.smooth_factr", "'smooth_factor'")),
        ("+loss.gama=2", ("loss.gama", "nothing reads it")),
        ("+loss.name2=x", ("loss.name2", "nothing reads it")),
        ("optimizer.lr=abc", ("optimizer.lr='abc'", "expected a number")),
        ("+optimizer.lrr=1", ("optimizer.lrr", "'lr'")),
        ("seed=abc", ("seed", "Integer")),
        ("seed=-1", ("seed=-1", "0 to 4294967295")),
        ("dataset.windw=3", ("dataset.windw", "'window'")),
        ("+dataset.foo=1", ("dataset.foo", "unknown key 'foo'")),
        ("+foo=1", ("foo", "unknown key 'foo'")),
        ("lr=0.1", ("lr: unknown key 'lr'; did you mean 'optimizer.lr'?",)),
        ("window=64", ("window: unknown key 'window'; did you mean 'dataset.window'?",)),
        (
            "dataset.root=~/x",
            ("dataset.root=~/x", """double quotes in single quotes: 'key="value"'""", "$HOME"),
        ),
        ("on_nan=skp", ("on_nan=skp", "'skip'")),
        ("find=batchsize", ("find=batchsize", "'batch_size'")),
        ("average=emma", ("average=emma", "'ema'")),
        ("average.name=emma", ("average.name=emma", "'ema'")),
        ("average=ema average.decay=1", ("average.decay=1", "less than 1")),
        ("average.strt=1", ("average.strt", "'start'")),
        ("save_minutes=-1", ("save_minutes=-1", "0 or more")),
        ("save_minutes=often", ("save_minutes", "Float")),
        ("encoder.freeze_epoch=1", ("encoder.freeze_epoch", "'freeze_epochs'")),
        ("encoder.freeze_epochs=-1", ("encoder.freeze_epochs=-1", "0 or more")),
        ("compile=fast", ("compile", "bool")),
        ("trainer.max_epoch=3", ("trainer.max_epoch", "'max_epochs'")),
        ("+trainer.max_epochss=3", ("trainer.max_epochss", "'max_epochs'")),
        ("trainer.max_epochs=0", ("trainer.max_epochs=0", "1 or more")),
        ("trainer.max_epochs=many", ("trainer.max_epochs='many'", "expected a whole number")),
        ("+model.encoder_dept=3", ("model.encoder_dept", "'encoder_depth'")),
        ("model.encoder_depth=deep", ("model.encoder_depth='deep'", "expected a whole number")),
        ("loss.weights=sqr", ("loss.weights='sqr': expected inverse, ", "sqrt, ", " or a list of numbers")),
        ("launcher=proces", ("launcher=proces", "'process'")),
        ("sweeper=optun", ("sweeper=optun", "'optuna'")),
        ("hydra.launcher.slot=2", ("hydra.launcher.slot", "'slots'")),
        ("hydra.launcher.slots=two", ("hydra.launcher.slots", "Integer")),
        ("hydra.sweeper.trials=many sweeper=optuna", ("hydra.sweeper.trials", "Integer")),
        ("mode=leaderboard", ("mode=leaderboard sweep=None", "the folder of a sweep")),
        ("sweep=x", ("mode=train sweep=x", "mode=leaderboard")),
        ("mode=tran", ("mode=tran", "'train'")),
        ("mode=test", ("mode=test checkpoint=None", "a run folder or a checkpoint file")),
        ("checkpoint=x", ("mode=train checkpoint=x", "mode=test")),
        ("mode=test checkpoint=x split=tst", ("split=tst", "'test'")),
        ("split=val", ("split=val", "mode=test")),
        ("evaluation.boundry=3", ("evaluation.boundry", "'boundary'")),
        ("evaluation.boundary=-1", ("evaluation.boundary=-1", "0 or more")),
        ("evaluation.draws=-1", ("evaluation.draws=-1", "0 or more")),
        ("mode=chek", ("mode=chek", "'check'")),
        ("mode=check dataset.windw=3", ("dataset.windw", "'window'")),
        ("dataset=own", ("dataset.root", "no value")),
        ("dataset.normalize=standardise", ("dataset.normalize", "'standardize'")),
        ("dataset.normalize=percentiles", ("dataset.normalize", "'percentile'")),
        ("dataset.sampler=balance", ("dataset.sampler=balance", "'balanced'")),
        ("dataset.cache=memap", ("dataset.cache=memap", "'memmap'")),
        ("dataset.on_read_error=ignored", ("dataset.on_read_error", "'ignore'")),
        ("dataset.zero_is_nodata=perhaps", ("dataset.zero_is_nodata", "bool")),
        ("augment.gama=1", ("augment.gama", "'gamma'")),
        ("augment.scale=-2", ("augment.scale=-2", "0 to 3")),
        ("augment.scale=[1]", ("augment.scale=[1]", "[minimum, maximum]")),
        ("augment.scale=[1,0.5]", ("augment.scale=[1, 0.5]", "[minimum, maximum]")),
        ("augment.scale=[0.1,1]", ("augment.scale=[0.1, 1]", "from 0.25 to 4")),
        ("augment.scale=large", ("augment.scale=large", "a number")),
        ("augment.shear=90", ("augment.shear=90:", "0 to 45")),
        ("augment.noise=-1", ("augment.noise=-1:", "0 or more")),
        ("augment.transforms=[3]", ("augment.transforms[0]", "_target_")),
        (
            "augment.transforms=[{_target_:torchvision.transforms.v2.RandomRotation,degree:3}]",
            ("augment.transforms[0].degree", "'degrees'"),
        ),
        ("dataset.split.by=fractions", ("dataset.split.by", "'fraction'")),
        ("dataset.split.by=block", ("dataset.split.by", "'blocks'")),
        (
            "dataset=hls dataset.split.table=null dataset.split.column=null dataset.split.by=blocks",
            ("dataset.split.block=None", "the side of a block in pixels"),
        ),
        (
            "dataset=own dataset.root=x dataset.classes=[a,b] dataset.split.train=0.6",
            ("split.train=0.6", "pattern or list, not fraction"),
        ),
        ("dataset.split.group=x", ("dataset.split.group=x", "is for dataset.split.by=fraction, not pattern")),
        ("dataset=hls dataset.split.group=a", ("dataset.split.group=a", "tiles.csv says that, too")),
        (
            'dataset=amazon loss=dice dataset.split.group="("',
            ("dataset.split.group=(", "no regular expression"),
        ),
        ("dataset=hls dataset.split.column=null", ("tiles.csv column=None", "or neither")),
        ("dataset.bands=[]", ("dataset.bands=[]", "null for all")),
        ("dataset.windows_per_epoch=0", ("dataset.windows_per_epoch=0", "1 or more, or null")),
        ("dataset.split.block=512", ("dataset.split.block=512", "is for dataset.split.by=blocks")),
        (
            "dataset.split.by=blocks dataset.split.block=9 dataset.split.group=x",
            ("split.group=x", "is for dataset.split.by=fraction, not blocks"),
        ),
        ("dataset=dubai dataset.split.by=fraction", ("expected a share of the scenes",)),
        ("dataset.split.by=fraction dataset.split.val=1.5", ("dataset.split.val=1.5", "0 to below 1")),
        (
            "dataset=own dataset.root=x dataset.classes=[a,b] dataset.split.by=pattern",
            ("dataset.split.val=0.2: expected a glob or a list", "because of dataset.split.by=pattern"),
        ),
        (
            "dataset=own dataset.root=x dataset.classes=[a,b] dataset.split.by=list",
            ("dataset.split.val=0.2: expected a text file with an image per line",),
        ),
        ("dataset.split.val=[]", ("dataset.split.val=[]: expected a glob",)),
        ("dataset.split.balance=false", ("balance=false", "is for dataset.split.by=blocks, not pattern")),
        ("dataset.split.unit=meters", ("dataset.split.unit=meters", "'metres'")),
        ("dataset.split.buffer=-1", ("dataset.split.buffer=-1", "0 or more")),
        ("dataset.unlabelled=skipped", ("dataset.unlabelled=skipped", "'skip'")),
        ("dataset.allow_leakage=some", ("dataset.allow_leakage", "bool")),
        ("dataset.label.align=reprojct", ("dataset.label.align=reprojct", "'reproject'")),
        ("dataset.label.order=classes", ("dataset.label.order=classes", "'class'")),
        ("dataset.num_workers=2", ("dataset.num_workers=2", "dataset.samples", "num_threads")),
        ("dataset.samples={a:1}", ("dataset.samples", "_target_")),
        (
            "dataset.samples={_target_:torch.utils.data.TensorDataset,x:1} dataset.num_workers=-1",
            ("dataset.num_workers=-1", "0 or more"),
        ),
        ("dataset.num_threads=0", ("dataset.num_threads=0", "1 to 1024")),
        ("scheduler.interval=steps", ("scheduler.interval", "'step'")),
        ("callbacks.early_stopping.patienc=3", ("patienc", "'patience'")),
        ("+callbacks.mine=3", ("callbacks.mine", "_target_")),
        ("augment.rotat=3", ("augment.rotat", "'rotate'")),
        ("loss=soft_bce", ("loss=soft_bce", "binary", "multiclass")),
        ("loss=compound loss.terms={dise:1}", ("loss.terms", "'dise'", "'dice'")),
    ],
)
def test_a_wrong_word_is_answered_with_what_there_is(override: str, words: tuple[str, ...]) -> None:
    answer = answer_to(*override.split(" "))
    assert "\n" not in answer
    for word in words:
        assert word in answer


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("windw=3", ("windw", "'window'")),
        ("checkpoint=x", ("input", "no value")),
        ("+foo=1", ("foo", "unknown key 'foo'")),
        ("overlap=wide", ("overlap", "Integer")),
        ("tta=flip", ("tta=flip", "did you mean 'flips'")),
        ("checkpoint=[]", ("checkpoint=[]", "a list of these")),
        ("weights=[1,-1]", ("weights=[1.0, -1.0]", "above 0")),
        ("backend=openvin", ("backend=openvin", "did you mean 'openvino'")),
        ("engine=rey", ("engine=rey", "did you mean 'ray'")),
        ("engine=torchrun", ("engine=torchrun", "start it with torchrun")),
        ("workers=2", ("workers=2", "is for engine=ray")),
        ("resolution=-1", ("resolution=-1", "more than 0 map units")),
        ("temperature=0", ("temperature=0", "more than 0")),
        ("threshold=2", ("threshold=2", "more than 0 and less than 1")),
    ],
)
def test_inference_answers_too(override: str, words: tuple[str, ...]) -> None:
    given = [] if override == "checkpoint=x" else ["input=x", "output=x"]
    given += [] if override.startswith("checkpoint=") else ["checkpoint=x"]
    answer = answer_to(override, *given, name="inference")
    assert "\n" not in answer
    for word in words:
        assert word in answer


def test_maps_that_several_processes_would_make_each_for_itself_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = "checkpoint=x", "input=x", "output=x"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "engine=local: several processes were started together" in answer_to(*given, name="inference")
    assert answer_to(*given, "engine=torchrun", name="inference") == ""


@pytest.mark.parametrize("override", ["compile=true", "precision=fp16"])
def test_openvino_is_told_what_it_does_not_do(override: str) -> None:
    given = "checkpoint=x", "input=x", "output=x", "backend=openvino"
    assert f"backend=openvino {override}" in answer_to(*given, override, name="inference")


@pytest.mark.parametrize("override", ["loss=focl", "+loss.gama=2", "optimizer.lr=abc", "dataset.windw=1"])
def test_the_command_line_exits_with_one_line_and_code_2(run: Run, override: str) -> None:
    result = run("train.py", override)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_typo_is_answered_before_torch_is_imported(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "probe.py").write_text(
        "import runpy, sys\n"
        f"sys.argv = ['train.py', '+loss.gama=2']\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(REPOSITORY / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules)\n"
    )
    result = run(str(tmp_path / "probe.py"))
    assert result.stdout.split() == ["2", "False"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["~loss"], "~loss: loss is required; change it with loss=..., or leave this out"),
        (["-m", "~model", "seed=0,1"], "~model: model is required"),
        (["~trainer=auto"], "~trainer=auto: trainer is required"),
        (["~loss.name"], "~loss.name: loss.name is required"),
        (["--resolve"], "--resolve: fills in what --cfg or --help shows; for example --cfg job --resolve"),
        (["--cfg", "job", "-m"], "expected one of --run, --multirun (-m), --cfg"),
    ],
)
def test_deletions_and_flags_that_cannot_be_are_answered_in_one_line(
    run: Run, tmp_path: pathlib.Path, words: list[str], answer: str
) -> None:
    result = run("train.py", *words)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {answer}")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word", ["~logger", "~callbacks", "~augment", "~callbacks.early_stopping", "~loss.smooth_factor"]
)
def test_what_may_be_deleted_is(run: Run, word: str) -> None:
    assert run("train.py", word, "--cfg", "job").returncode == 0


def test_null_in_place_of_a_choice_is_answered_in_one_line(run: Run) -> None:
    result = run("train.py", "seed=1", "logger=null")
    assert result.returncode == 2
    assert result.stderr.startswith("error: logger=null: expected a name; `none` switches off logger")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.launcher.slots=0", "seed=0,1"], "slots=0, threads=None: expected 1 or more"),
        (
            ["hydra.launcher.devices=[0]", "hydra.launcher.slots=2", "seed=0,1"],
            "fewer than hydra.launcher.slots=2",
        ),
        (
            ["optimizer.lr=interval(1,2)"],
            "optimizer.lr: an interval has no list of values",
        ),
        (["sweeper=optuna"], "nothing to search for"),
        (["sweeper=optuna", "hydra.sweeper.sampler=tp", "seed=0,1"], "expected one of tpe, random"),
        (["sweeper=optuna", "hydra.sweeper.pruner=best", "seed=0,1"], "expected one of median, none"),
        (
            ["sweeper=optuna", "hydra.sweeper.trials=0", "seed=0,1"],
            "trials=0, batch=None: expected 1 or more",
        ),
        (["sweeper=optuna", "hydra/launcher=basic", "seed=0,1"], "add hydra.sweeper.pruner=none"),
        (["mode=test", "checkpoint=a,b"], "python train.py mode=test ..."),
        (["dataset.batch_size=0,-1"], "dataset.batch_size=0: expected 1 to 65536"),
        (["dataset.batch_size=0", "seed=0,1", "sweeper=optuna"], "dataset.batch_size=0: expected 1 to 65536"),
        (["loss=focl,dice"], "loss=focl: unknown loss 'focl'; did you mean 'focal'?"),
        (["loss=dice,focl", "hydra.sweeper.max_batch_size=1"], "loss=focl: unknown loss 'focl'"),
        (["loss=dice,focl", "sweeper=optuna"], "loss=focl: unknown loss 'focl'; did you mean 'focal'?"),
    ],
)
def test_a_wrong_word_of_a_sweep_is_answered_before_anything_runs(
    run: Run, tmp_path: pathlib.Path, words: list[str], message: str
) -> None:
    result = run("train.py", "-m", *words, "hydra.sweep.dir=sweep")
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--help"], ["-m", "hydra.launcher.slots=0"], ["+loss.gama=2"]])
def test_what_needs_no_training_imports_nothing_heavy(
    run: Run, tmp_path: pathlib.Path, words: list[str]
) -> None:
    heavy = ("torch", "pytorch_lightning", "matplotlib", "numpy", "optuna", "joblib", "submitit", "ray")
    (tmp_path / "probe.py").write_text(
        "import runpy, sys\n"
        f"sys.argv = ['train.py', *{words!r}]\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(REPOSITORY / 'train.py')!r}, run_name='__main__')\n"
        "finally:\n"
        f"    print('heavy:', [name for name in {heavy!r} if name in sys.modules])\n"
    )
    result = run(str(tmp_path / "probe.py"))
    assert result.stdout.splitlines()[-1] == "heavy: []"


def test_a_wrong_option_inside_a_yaml_file_is_answered(tmp_path: pathlib.Path, run: Run) -> None:
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / "sharp.yaml").write_text("name: focal\ngama: 3\n")
    result = run("train.py", "loss=sharp", "--config-dir", str(tmp_path / "mine"))
    assert result.returncode == 2
    assert "loss.gama: nothing reads it; did you mean 'gamma'?" in result.stderr


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["dataset=own", "dataset.root=nowhere", "dataset.classes=[a,b]"], []),
        (["loss=dice", "dataset.window=0"], []),
        (["dataset.window=0", "hydra.run.dir=mine/run"], ["mine", "mine/note.txt"]),
        (["dataset.window=0", "hydra.run.dir=mine"], ["mine", "mine/note.txt"]),
    ],
    ids=["no data", "a wrong value", "in a folder of one's own", "beside files"],
)
@pytest.mark.fault("first_hour", "a start that fails leaves a folder")
def test_a_start_that_fails_leaves_no_folder(
    run: Run, tmp_path: pathlib.Path, words: list[str], kept: list[str]
) -> None:
    for name in kept:
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir()
    result = run("train.py", *words)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert {name for name in found if ".hydra" not in name and not name.endswith(".log")} == set(kept)
    assert kept[:1] == ["mine"] or not found


@pytest.mark.fault("acts", "control characters of a file's words reach the terminal in an error")
@pytest.mark.parametrize(("word", "shown"), [("\x1b[2J", "\\x1b[2J"), ("\x07", "\\x07"), ("ü – θ", "ü – θ")])
def test_an_answer_shows_control_characters_and_does_not_send_them(
    word: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> None:
        raise ConfigError(f"callbacks.mine: there is no package {word}")

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as ended:
        run_main(fail, [])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: callbacks.mine: there is no package {shown}\n"
