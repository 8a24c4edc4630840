"""Each private name of Lightning that geo_seg relies on: a release that moves one fails here, by its name."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch.utils.data import DataLoader

from geo_seg.training.callbacks import lightning_loops
from tests.conftest import REPOSITORY

BATCHES = 6
FILE = Path(lightning_loops.__file__)


class Course(pl.Callback):
    """What the functions say after each training batch, after each validation batch and of epochs."""

    def __init__(self) -> None:
        self.batches: list[tuple[bool, bool, bool, bool, int]] = []
        self.validation: list[bool] = []
        self.sent: list[dict[str, float]] = []
        self.contexts: list[torch.dtype] = []
        self.restarting: list[bool] = []
        self.state: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.fit_loop.epoch_loop.restarting = True
        lightning_loops.correct_restart_flag(trainer)
        self.restarting.append(trainer.fit_loop.epoch_loop.restarting)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.batches.append(
            (
                lightning_loops.is_accumulating(trainer),
                lightning_loops.is_last_batch_of_epoch(trainer),
                lightning_loops.validation_is_due(trainer),
                lightning_loops.is_validation_epoch(trainer),
                lightning_loops.batches_started(trainer),
            )
        )
        lightning_loops.log_step_metrics(trainer)
        with lightning_loops.forward_context(trainer):
            self.contexts.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        moved = lightning_loops.batch_to_device(trainer, {"image": torch.ones(1)})
        assert moved["image"].device == pl_module.device
        self.state = trainer.fit_loop.state_dict()

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.validation.append(lightning_loops.is_last_validation_batch(trainer))


class Tiny(pl.LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = (self.weight * batch.mean()).sum()
        self.log("train/loss_step", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/loss", batch.mean(), batch_size=len(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def course() -> Course:
    """Two epochs of 6 batches on a CPU: gradients of 2 batches to a step, validation after 4 batches."""
    recorder = Course()
    trainer = pl.Trainer(
        max_epochs=2,
        accumulate_grad_batches=2,
        val_check_interval=4,
        check_val_every_n_epoch=2,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[recorder],
    )
    connector = trainer._logger_connector
    connector.log_metrics = lambda metrics, **_: recorder.sent.append(dict(metrics))  # type: ignore[method-assign]
    trainer.log_every_n_steps = 1
    data = DataLoader(torch.ones(BATCHES * 2, 1), batch_size=2)  # type: ignore[arg-type]
    trainer.fit(Tiny(), data, DataLoader(torch.ones(6, 1), batch_size=2))  # type: ignore[arg-type]
    return recorder


@pytest.fixture(scope="module")
def trainer() -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_steps=1
    )


PRIVATE: dict[str, Callable[[pl.Trainer], Any]] = {
    "_data_fetcher": lambda trainer: trainer.fit_loop,
    "_should_accumulate": lambda trainer: trainer.fit_loop.epoch_loop,
    "_num_ready_batches_reached": lambda trainer: trainer.fit_loop.epoch_loop,
    "_should_check_val_fx": lambda trainer: trainer.fit_loop.epoch_loop,
    "_should_check_val_epoch": lambda trainer: trainer.fit_loop.epoch_loop,
    "_logger_connector": lambda trainer: trainer,
    "_wandb_init": lambda trainer: WandbLogger(offline=True),
}
"""Private names, and the object that has each."""


@pytest.mark.parametrize("name", PRIVATE)
def test_lightning_still_has_the_private_name(trainer: pl.Trainer, name: str) -> None:
    if name == "_wandb_init":
        pytest.importorskip("wandb")
    holder = PRIVATE[name](trainer)
    assert hasattr(holder, name), (
        f"{type(holder).__name__}.{name} has moved in pytorch_lightning {pl.__version__}"
    )


@pytest.mark.parametrize(
    "path",
    [
        "fit_loop.epoch_loop.restarting",
        "fit_loop.epoch_loop.batch_progress.is_last_batch",
        "fit_loop.epoch_loop.batch_progress.current.ready",
        "fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch",
        "_logger_connector.update_train_step_metrics",
        "strategy.batch_to_device",
        "strategy.reduce",
        "strategy.broadcast",
        "strategy.reduce_boolean_decision",
        "strategy.load_checkpoint",
        "strategy.load_model_state_dict",
        "strategy.load_optimizer_state_dict",
        "precision_plugin.forward_context",
    ],
)
def test_lightning_still_has_what_its_extensions_use(trainer: pl.Trainer, path: str) -> None:
    holder: Any = trainer
    for name in path.split("."):
        assert hasattr(holder, name), f"{path}: {type(holder).__name__} has no {name} any more"
        holder = getattr(holder, name)


@pytest.mark.parametrize(
    "path",
    [
        "epoch_progress.total.ready",
        "epoch_progress.current.started",
        "epoch_progress.current.processed",
        "epoch_progress.current.completed",
        "epoch_loop.batch_progress/is_last_batch",
        "epoch_loop.batch_progress/total.ready",
        "epoch_loop.batch_progress/current.ready",
        "epoch_loop.val_loop.batch_progress/total.ready",
        "epoch_loop.val_loop.batch_progress/current.completed",
        "epoch_loop.val_loop.batch_progress/is_last_batch",
        "epoch_loop.state_dict/_batches_that_stepped",
    ],
)
def test_the_state_of_the_loops_still_has_the_key(course: Course, path: str) -> None:
    first, _, rest = path.partition("/" if "/" in path else ".")
    state: Any = course.state
    for key in (first, *rest.split(".")):
        assert key in state, f"fit_loop.state_dict(): {path} has moved in pytorch_lightning {pl.__version__}"
        state = state[key]


def test_no_other_file_uses_a_private_name_of_lightning() -> None:
    private = {path: foreign_names(path) for path in (REPOSITORY / "geo_seg" / "training").rglob("*.py")}
    assert private.pop(FILE) == set(PRIVATE)
    assert {path: names for path, names in private.items() if names} == {}


def foreign_names(path: Path) -> set[str]:
    """Private attributes that a file reads of something else than `self`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }


def test_a_step_waits_for_the_batches_that_it_accumulates(course: Course) -> None:
    assert [batch[0] for batch in course.batches] == [True, False] * 6


def test_the_last_batch_of_an_epoch_is_known(course: Course) -> None:
    assert [batch[1] for batch in course.batches] == [*[False] * 5, True] * 2


def test_validation_is_announced_after_the_batch_before_it(course: Course) -> None:
    assert [batch[2] for batch in course.batches] == [*[False] * 9, True, False, False]
    assert [batch[3] for batch in course.batches] == [*[False] * 6, *[True] * 6]
    assert course.validation == [False, False, True]


def test_batches_are_counted_from_one_in_each_epoch(course: Course) -> None:
    assert [batch[4] for batch in course.batches] == [1, 2, 3, 4, 5, 6] * 2


def test_an_epoch_at_its_start_is_none_that_is_resumed(course: Course) -> None:
    assert course.restarting == [False]


def test_values_of_a_step_are_sent_where_gradients_are_complete(course: Course) -> None:
    assert (
        len([sent for sent in course.sent if "train/loss_step" in sent]) == 12
    )  # Lightning sends each again


def test_a_forward_pass_has_the_precision_of_the_run(course: Course) -> None:
    assert set(course.contexts) == {torch.bfloat16}


def test_the_argument_that_wandb_warns_of_is_dropped() -> None:
    logger: Any = SimpleNamespace(_wandb_init={"anonymous": None, "name": "x"})
    lightning_loops.drop_anonymous_argument(logger)
    assert logger._wandb_init == {"name": "x"}
