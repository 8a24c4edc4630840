"""Checks of the training configuration, before torch is imported."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import geo_seg
from geo_seg.config.augment import check_augment
from geo_seg.config.class_rows import parse_class_rows
from geo_seg.config.components import ARCHITECTURES, FROM_PYTHON, check_name, check_options, check_target
from geo_seg.config.dataset_checks import check_dataset
from geo_seg.config.fields import check_choice, to_dataclass
from geo_seg.config.idle_keys import check_idle
from geo_seg.config.inference import PRECISIONS
from geo_seg.config.signatures import Signature, registered_factories, signature
from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, IncompatibleChoiceError, did_you_mean, missing_extra
from geo_seg.runtime.files import expand_user

_LOSSES_DIR = Path(geo_seg.__file__).parents[1] / "losses"
_TRAINING_CHOICES = {
    "on_nan": ("stop", "skip", "rollback"),
    "find": ("none", "lr", "batch_size", "both"),
}
# weights stay in float32: in float16 small updates are lost, float64 gains nothing
_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "32", 32)
_VALIDATION_SCORES = ("miou", "loss", "accuracy", "boundary_iou")
_LOGGER_PACKAGES = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow", "WandbLogger": "wandb"}


def parse_train_config(cfg: DictConfig) -> TrainConfig:
    """Convert the composed configuration to dataclasses and plain containers, and check it.

    Raises:
        ConfigError: an unknown key or name, or an invalid value.
    """
    config: TrainConfig = to_dataclass(cfg, TrainConfig)
    _check_mode(config)
    _check_schedule(config)
    data = config.dataset
    data.root = expand_user(data.root)
    check_dataset(data)
    _check_loss(config.loss, data.mode if config.mode == "train" else None)  # other modes need no loss
    check_model(config.model)
    for section in ("optimizer", "scheduler", "trainer"):
        check_target(section, section, getattr(config, section))
    check_choice("trainer.precision", config.trainer.get("precision", "32-true"), _PRECISIONS)
    epochs = config.trainer.get("max_epochs")
    if isinstance(epochs, int) and epochs < 1:
        raise ConfigError(f"trainer.max_epochs={epochs}: expected 1 or more")
    check_choice("scheduler.interval", config.scheduler.get("interval", "epoch"), ("step", "epoch"))
    check_augment(config.augment)
    _check_lists(config)
    check_idle(config)
    return config


def _check_lists(config: TrainConfig) -> None:
    for name, callback in config.callbacks.items():
        check_target("callbacks", f"callbacks.{name}", callback)
        _check_monitor(f"callbacks.{name}.monitor", callback.get("monitor"), config)
    for name, logger in config.logger.items():
        check_target("logger", f"logger.{name}", logger)
        package = _LOGGER_PACKAGES.get(logger["_target_"].rpartition(".")[2], "")
        if package and find_spec(package) is None:
            raise ConfigError(f"logger={name}: {missing_extra(package)}")


def _check_monitor(key: str, monitor: Any, config: TrainConfig) -> None:
    names = parse_class_rows(config.dataset).names
    available = [*(f"val/{score}" for score in _VALIDATION_SCORES), *(f"val/iou_{name}" for name in names)]
    if monitor is not None and str(monitor).startswith("val/") and monitor not in available:
        raise ConfigError(f"{key}={monitor}: unknown score {monitor!r}; {did_you_mean(monitor, available)}")


def _check_mode(config: TrainConfig) -> None:
    check_choice("mode", config.mode, ("train", "check", "test", "leaderboard"))
    if (config.mode == "leaderboard") != (config.sweep is not None):
        raise ConfigError(
            f"mode={config.mode} sweep={config.sweep}: expected mode=leaderboard with the folder of a sweep"
        )
    if (config.mode == "test") != (config.checkpoint is not None):
        raise ConfigError(
            f"mode={config.mode} checkpoint={config.checkpoint}: expected mode=test with a run folder or a "
            "checkpoint file"
        )
    if config.split is not None:
        if config.mode != "test":
            raise ConfigError(f"split={config.split}: is for mode=test; scenes are split by dataset.split")
        check_choice("split", config.split, ("val", "test"))
    for key, value in (("boundary", config.evaluation.boundary), ("draws", config.evaluation.draws)):
        if value < 0:
            raise ConfigError(f"evaluation.{key}={value}: expected 0 or more")
    check_choice("evaluation.precision", config.evaluation.precision, PRECISIONS)


def _check_schedule(config: TrainConfig) -> None:
    for key, choices in _TRAINING_CHOICES.items():
        check_choice(key, getattr(config, key), choices)
    check_choice("average.name", config.average.name, ("none", "ema", "swa"))
    for key, value in (("average.decay", config.average.decay), ("average.start", config.average.start)):
        if not 0 <= value < 1:
            raise ConfigError(f"{key}={value}: expected 0 or more and less than 1")
    if not 0 <= config.seed < 1 << 32:
        raise ConfigError(f"seed={config.seed}: expected 0 to {(1 << 32) - 1}")
    if not 0 < config.encoder.layer_decay <= 1:
        raise ConfigError(
            f"encoder.layer_decay={config.encoder.layer_decay}: expected more than 0 and up to 1"
        )
    for key, value in (
        ("save_minutes", config.save_minutes),
        ("encoder.freeze_epochs", config.encoder.freeze_epochs),
        ("encoder.lr_factor", config.encoder.lr_factor),
    ):
        if value < 0:
            raise ConfigError(f"{key}={value}: expected 0 or more")


def _check_loss(loss: Mapping[str, Any], mode: str | None) -> None:
    losses = registered_factories(_LOSSES_DIR)
    name = check_name("loss", loss, losses)
    check_options("loss", loss, losses[name][0], set(), {"name"})
    modes = losses[name][1]
    if mode is not None and mode not in modes:
        available = ", ".join(sorted(loss for loss in losses if mode in losses[loss][1]))
        raise IncompatibleChoiceError(
            f"loss={name} is for {modes[0]} data, the data set is {mode}; available: {available}"
        )
    for term, weight in (loss.get("terms") or {}).items():
        if term not in losses:
            raise ConfigError(f"loss.terms: unknown loss {term!r}; {did_you_mean(term, losses)}")
        if isinstance(weight, str):
            raise ConfigError(
                f"loss.terms.{term}={weight!r}: expected a number, or a mapping of from, to, over"
            )


def check_model(model: Mapping[str, Any]) -> None:
    """Raise ConfigError for an unknown architecture, or an option that it doesn't accept."""
    name = check_name("model", model, ARCHITECTURES)
    accepted = signature(f"segmentation_models_pytorch.{ARCHITECTURES[name]}")
    if accepted is not None:  # without **kwargs: smp accepts and drops unknown options
        accepted = Signature(accepted.parameters, accepts_kwargs=False)
        check_options("model", model, accepted, FROM_PYTHON["model"], {"name", "encoder", "weights"})
