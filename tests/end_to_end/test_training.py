"""A run trains, tests, leaves a folder that says everything, and does what its configuration says."""

import csv
import json
import re
import socket
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_dir

from geo_seg.checkpoints import checkpoint
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.training.run import run as train
from tests.conftest import REPOSITORY, Run, small_overrides
from tests.unit.test_report import assert_readable


@pytest.fixture(autouse=True)
def clean_hydra(hydra_restore_singletons: object) -> None:
    """Leaves no state of Hydra's behind."""


def configured(root: Path, *overrides: str) -> TrainConfig:
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        return parse_train_config(compose("train", [*small_overrides(root), *overrides]))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def kept_last(folder: Path) -> bool:
    """Whether the checkpoint that is predicted with is the last one."""
    files = [(folder / "checkpoints" / f"{name}.ckpt").read_bytes() for name in ("best", "last")]
    return files[0] == files[1]


@pytest.fixture(scope="module")
def finished(small_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(configured(small_root, "trainer.max_epochs=2"), folder)
    return folder


def test_the_run_folder_holds_all_that_the_run_was(finished: Path) -> None:
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert names >= {
        "config.yaml",
        "metrics.csv",
        "metrics.json",
        "report.html",
        "summary.txt",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "figures/curves.png",
        "figures/confusion.png",
        "figures/test_1.png",
    }
    found = json.loads((finished / "metrics.json").read_text())
    assert 0 <= found["test"]["miou"] <= 1
    assert found["epochs"] == 2
    assert len(rows(finished)) == 2
    assert float(rows(finished)[1]["val/miou"]) <= found["best_val_miou"] + 1e-6
    assert found["predicted_with"]["checkpoint"] in {"last", "highest"}
    assert yaml.safe_load((finished / "config.yaml").read_text())["dataset"]["name"] == "own"
    assert "python inference.py checkpoint=" in (finished / "summary.txt").read_text()
    text = (finished / "report.html").read_text()
    assert f"Predicted with the weights of the {'last epoch' if kept_last(finished) else 'epoch of'}" in text
    page = assert_readable(text)
    assert len(text) < 3_000_000
    assert "middle" in text
    alts = [str(image["alt"]) for image in page.all("img")]
    for start in (
        "Loss over 2 epochs",
        "Validation scores",
        "Confusion matrix",
        "Reliability",
        "Class balance",
    ):
        assert sum(alt.startswith(start) for alt in alts) == 1
    assert sum(alt.startswith("Map of the splits: train, val, test") for alt in alts) == 1
    for kind in ("best", "worst"):
        assert any(alt.startswith(f"errors of {kind}: mean IoU") for alt in alts)
    assert "EPSG:32633" in text  # where the windows lie
    changed = text[text.index("What differs from the default") : text.index("The whole configuration")]
    assert "trainer.max_epochs" in changed and "optimizer.lr" not in changed


def test_a_checkpoint_holds_plain_types_and_everything_that_prediction_needs(finished: Path) -> None:
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)[checkpoint.METADATA_KEY]
    assert json.loads(json.dumps(content)) == content
    found = checkpoint.load_checkpoint(finished)
    assert found.path == finished / "checkpoints" / "best.ckpt"
    assert found.class_names == ("low", "middle", "high")
    assert (found.in_channels, found.dtype, found.window) == (2, "uint16", 32)
    assert found.metadata.config["loss"]["name"] == "weighted_cross_entropy"
    assert 0.1 <= found.temperature <= 10
    assert found.threshold == 0.5
    image = torch.from_numpy(np.full((1, 2, 20, 30), 1500, np.uint16))
    with torch.inference_mode():
        logits = found.model(found.normalize(image, torch.ones(1, 20, 30, dtype=torch.bool)))
    assert logits.shape == (1, 3, 20, 30)


def assert_shareable(folder: Path, *names: str) -> None:
    """No file of these holds an absolute path, the user's or the host's name."""
    private = (str(folder.parents[1]), str(REPOSITORY), socket.gethostname())
    files = [file for name in names for file in folder.glob(name)]
    assert len(files) >= len(names)
    for file in files:
        if file.suffix == ".ckpt":
            content = repr(torch.load(file, weights_only=True)[checkpoint.METADATA_KEY])
        else:
            content = re.sub(r'base64,[^"]+', "", file.read_bytes().decode(errors="replace"))
        assert [text for text in private if re.search(rf"(?<!\w){re.escape(text)}\b", content)] == [], file


@pytest.mark.fault("privacy", "checkpoints, report.html and summary.txt hold absolute paths")
def test_what_is_handed_on_of_a_run_holds_no_absolute_path(finished: Path) -> None:
    names = ("*.html", "summary.txt", "metrics.json", "scenes.*", "classes.csv")
    assert_shareable(finished, "checkpoints/*.ckpt", *names)
    held = checkpoint.load_checkpoint(finished).metadata.config
    known = yaml.safe_load((finished / "config.yaml").read_text())
    assert held == {**known, "dataset": {**known["dataset"], "root": "."}}  # and is the same in all else
    told = (finished / "summary.txt").read_text()
    for line in ("report      report.html", "checkpoint  checkpoints/best.ckpt"):
        assert line in told
    assert "python inference.py checkpoint=. input=images/s5.tif output=predictions" in told


def test_temperature_and_threshold_are_fitted_on_validation_and_kept(
    small_root: Path, tmp_path: Path
) -> None:
    table = "dataset.classes=[{name: low, values: [0]}, {name: rest, values: [1, 2]}]"
    binary = ["dataset.mode=binary", table, "loss=soft_bce", "trainer.precision=32"]
    binary += ["loss.pos_weight=0.2", "optimizer.lr=0.01", "trainer.limit_train_batches=10"]
    train(configured(small_root, *binary, "model.encoder=tu-mobilenetv3_small_050"), tmp_path / "run")
    found = checkpoint.load_checkpoint(tmp_path / "run")
    assert found.temperature != 1
    assert found.threshold != 0.5
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert scores["val"]["miou"] >= scores["best_val_miou"] - 1e-6  # the threshold was chosen for it
    for split in ("val", "test"):
        said = scores[split]["calibration"]
        assert (said["temperature"], said["threshold"]) == (found.temperature, found.threshold)
        assert sum(said["raw"]["pixels"]) == scores[split]["pixels"]
    val = scores["val"]["calibration"]
    assert val["scaled"]["nll"] < val["raw"]["nll"]


def test_a_checkpoint_that_cannot_be_used_is_named(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"no checkpoints/best\.ckpt"):
        checkpoint.load_checkpoint(tmp_path)
    content = (finished / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="truncated or of another program"):
        checkpoint.load_checkpoint(tmp_path / "half.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of geo_seg"):
        checkpoint.load_checkpoint(tmp_path / "other.ckpt")


def test_a_run_never_overwrites_an_earlier_one(finished: Path, small_root: Path) -> None:
    before = (finished / "metrics.json").read_bytes()
    with pytest.raises(ConfigError, match="holds an earlier run"):
        train(configured(small_root), finished)
    assert (finished / "metrics.json").read_bytes() == before


def test_the_same_seed_gives_the_same_weights(small_root: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        train(
            configured(small_root, f"seed={seed}", "trainer.precision=32", "augment=strong"), tmp_path / name
        )
        state = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        return torch.cat([v.flatten().double() for k, v in state.items() if k.startswith("model.")])

    first = weights("a", 0)
    torch.testing.assert_close(first, weights("b", 0), rtol=1e-3, atol=1e-4)
    assert (first - weights("c", 1)).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["constant", "cosine", "onecycle", "poly", "step", "plateau"])
def test_every_scheduler_takes_effect(small_root: Path, tmp_path: Path, name: str) -> None:
    options = {
        "step": ["scheduler.step_size=1"],
        "plateau": ["scheduler.patience=0", "scheduler.threshold=9"],
    }
    train(
        configured(
            small_root,
            f"scheduler={name}",
            "trainer.max_epochs=3",
            "callbacks=none",
            "optimizer=sgd",
            *(o if o.split(".")[1].split("=")[0] != "threshold" else f"+{o}" for o in options.get(name, [])),
        ),
        tmp_path / "run",
    )
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert (len(set(rates)) == 1) == (name == "constant")
    assert rates[-1] <= rates[0]
    if name in {"cosine", "poly"}:
        assert rates[-1] < 1e-4  # they end with the run


def test_scenes_cut_into_blocks_are_trained_and_tested_on(small_root: Path, tmp_path: Path) -> None:
    split = ["dataset.split.by=blocks", "dataset.split.block=40", "dataset.split.buffer=2"]
    config = configured(small_root, *split, "dataset.split.val=0.2", "dataset.split.test=0.2")
    train(config, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # 6 scenes of 96 x 80 in blocks of 48 x 40, of which a few lie on the nodata of the left edge
    assert 4 * 48 * 33 <= found["test"]["pixels"] <= 5 * 48 * 40
    assert list((tmp_path / "run" / "figures").glob("test_*.png"))


def test_early_stopping_takes_effect(small_root: Path, tmp_path: Path) -> None:
    stop = ["callbacks.early_stopping.patience=1", "+callbacks.early_stopping.min_delta=2.0"]
    train(configured(small_root, "trainer.max_epochs=9", *stop), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 2


def test_class_weights_of_the_table_reach_the_loss(small_root: Path, tmp_path: Path) -> None:
    def loss(name: str, weights: tuple[float, float, float], *more: str) -> float:
        table = ",".join(f"{{name: c{i}, weight: {w}}}" for i, w in enumerate(weights))
        train(
            configured(
                small_root, "loss=cross_entropy", f"dataset.classes=[{table}]", "trainer.precision=32", *more
            ),
            tmp_path / name,
        )
        return float(rows(tmp_path / name)[0]["val/loss"])

    assert loss("even", (1, 1, 1)) != pytest.approx(loss("uneven", (5, 1, 0.1)), rel=1e-3)
    with pytest.raises(ConfigError, match=r"loss=lovasz: .*weight"):
        loss("refused", (5, 1, 0.1), "loss=lovasz")


def test_class_weights_by_frequency_and_the_origin_of_weights_are_told_before_training(
    small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    terms = "loss.terms={weighted_cross_entropy: {weights: inverse, cap: null}, dice: 1}"
    origin = f"model.weights={finished / 'checkpoints' / 'best.ckpt'}"
    train(configured(small_root, "loss=compound", terms, origin), tmp_path / "run")
    said = capsys.readouterr().out
    assert f"note: {origin}: the encoder takes 100% of its weights" in said
    assert_shareable(tmp_path / "run", "checkpoints/*.ckpt", "*.html", "summary.txt")
    shares = re.search(r"train: low ([\d.]+)%, middle ([\d.]+)%, high ([\d.]+)%", said)
    weights = re.search(r"class weights: low ([\d.]+), middle ([\d.]+), high ([\d.]+)", said)
    assert shares and weights and said.index("class weights") < said.index("epoch 1/1")
    for share, weight in zip(shares.groups(), weights.groups(), strict=True):
        assert float(weight) == pytest.approx(100 / 3 / float(share), rel=1e-2)


def test_terms_of_a_compound_loss_are_logged_and_follow_their_schedule(
    small_root: Path, tmp_path: Path
) -> None:
    terms = "loss.terms={cross_entropy: 1, dice: {from: 0, to: 1, over: 2}}"
    train(configured(small_root, "loss=compound", terms, "trainer.max_epochs=2"), tmp_path / "run")
    first, second = rows(tmp_path / "run")
    weights = (0.0, 0.5)
    for row, weight in zip((first, second), weights, strict=True):
        total = float(row["train/cross_entropy"]) + weight * float(row["train/dice"])
        assert float(row["train/loss"]) == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.accelerator=gpu", "trainer: "),
        ("trainer.precision=17", "trainer.precision=17: unknown choice 17"),
        ("model.encoder=resnt18", "'resnet18'"),
        ("+trainer.max_time=soon", "trainer: "),
    ],
)
def test_what_this_machine_cannot_do_is_said_before_training(
    small_root: Path, tmp_path: Path, override: str, message: str
) -> None:
    if override.endswith("gpu") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=message):
        train(configured(small_root, override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_without_validation_keeps_the_last_weights(small_root: Path, tmp_path: Path) -> None:
    train(configured(small_root, "trainer.limit_val_batches=0"), tmp_path / "run")
    assert checkpoint.load_checkpoint(tmp_path / "run").in_channels == 2
    assert "val/miou" not in rows(tmp_path / "run")[0]
    chosen = json.loads((tmp_path / "run" / "metrics.json").read_text())["predicted_with"]
    assert (chosen["checkpoint"], chosen["reason"]) == ("last", "the run has no validation")


class Moves(pl.Callback):
    """Notes how far each step moves the weights: the norm, and the largest of all."""

    found: ClassVar[list[tuple[float, float]]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self._before = self._weights(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        moved = self._weights(pl_module) - self._before
        self.found.append((float(moved.norm()), float(moved.abs().max())))

    @staticmethod
    def _weights(module: pl.LightningModule) -> torch.Tensor:
        return torch.cat([weight.detach().reshape(-1).double() for weight in module.parameters()])


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.fault("config", "a clipping of gradients that does nothing")
def test_gradients_are_clipped_and_accumulated_when_asked(
    small_root: Path, tmp_path: Path, algorithm: str
) -> None:
    options = ["model.encoder=tu-mobilenetv3_small_050", "trainer.precision=32", "scheduler=constant"]
    options += ["optimizer=sgd", "optimizer.lr=0.5", "optimizer.weight_decay=0", "optimizer.momentum=0"]
    options += ["optimizer.nesterov=false", f"+callbacks.moves._target_={Moves.__module__}.Moves"]
    options += ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.001"]
    options += [f"+trainer.gradient_clip_algorithm={algorithm}"]
    Moves.found.clear()
    train(configured(small_root, *options), tmp_path)
    assert rows(tmp_path)[0]["step"] == "1"
    (gathered, _), (norm, largest) = Moves.found
    assert gathered == 0
    assert (norm if algorithm == "norm" else largest) == pytest.approx(0.5 * 0.001, rel=0.05)


def test_a_batch_of_one_is_refused_by_models_that_need_two(small_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size=2 or more"):
        train(configured(small_root, "model=deeplabv3", "dataset.batch_size=1"), tmp_path / "run")


def test_the_command_line_trains_from_another_folder(run: Run, small_root: Path, tmp_path: Path) -> None:
    result = run("train.py", *small_overrides(small_root), "hydra.run.dir=here/my_run")
    assert result.returncode == 0, result.stderr
    assert "mean IoU" in result.stdout
    assert (tmp_path / "here" / "my_run" / "report.html").is_file()
    assert result.stderr == ""


def sweep(run: Run, root: Path, folder: Path, *overrides: str) -> tuple[list[str], int, str]:
    result = run("train.py", "-m", *small_overrides(root), *overrides, "hydra.sweep.dir=sweep")
    found = sorted(p.parent.name for p in folder.glob("sweep/*/metrics.json"))
    return found, result.returncode, result.stderr


def test_a_sweep_gives_each_run_a_folder_and_leaves_out_what_is_not_for_the_data(
    run: Run, small_root: Path, tmp_path: Path
) -> None:
    found, code, said = sweep(run, small_root, tmp_path, "loss=cross_entropy,soft_bce,dice")
    assert found == ["0_unet_cross_entropy", "2_unet_dice"]
    assert code == 0
    assert "skipped: loss=soft_bce is for binary data" in said


def test_a_sweep_goes_on_after_a_failure_and_says_so_in_the_end(
    run: Run, small_root: Path, tmp_path: Path
) -> None:
    found, code, said = sweep(run, small_root, tmp_path, "model.encoder=resnt18,resnet18")
    assert found == ["1_unet_weighted_cross_entropy"]
    assert code == 2
    assert "error: model.encoder=resnt18" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.root=/nowhere", "/nowhere: no such folder"),
        ("dataset.images=*.png", "no images match"),
        ("hydra.run.dir=/proc/run", "/proc/run"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    run: Run, small_root: Path, override: str, message: str
) -> None:
    result = run("train.py", *small_overrides(small_root), override)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
