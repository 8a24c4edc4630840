"""Checks of the training configuration, before torch is imported."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import geo_seg
from geo_seg.config.augment import augment_errors
from geo_seg.config.class_rows import parse_class_rows
from geo_seg.config.components import FROM_PYTHON, check_name, option_errors, target_errors
from geo_seg.config.dataset_checks import dataset_errors
from geo_seg.config.fields import check_choice, errors_of, raise_errors, to_dataclass
from geo_seg.config.idle_keys import idle_errors
from geo_seg.config.signatures import Registration, Signature, module_file, registrations, signature
from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, IncompatibleChoiceError, did_you_mean, missing_extra
from geo_seg.runtime.files import expand_user

_LOSSES_DIR = Path(geo_seg.__file__).parents[1] / "losses"
_MODELS_DIR = Path(geo_seg.__file__).parent / "models"
# weights stay in float32: in float16 small updates are lost, float64 gains nothing
_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "32", 32)
_VALIDATION_SCORES = ("miou", "loss", "accuracy", "boundary_iou")
_LOGGER_PACKAGES = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow", "WandbLogger": "wandb"}


def parse_train_config(cfg: DictConfig) -> TrainConfig:
    """Convert the composed configuration to dataclasses and plain containers, and check it.

    Raises:
        ConfigError: unknown keys or names, or invalid values.
    """
    config: TrainConfig = to_dataclass(cfg, TrainConfig)
    config.dataset.root = expand_user(config.dataset.root)
    config.init = expand_user(config.init)
    raise_errors(_training_errors(config))
    return config


def _training_errors(config: TrainConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with the components, and with keys beside others."""
    yield from _mode_errors(config)
    yield from dataset_errors(config.dataset)
    # other modes need no loss
    yield from _loss_errors(config.loss, config.dataset.mode if config.mode == "train" else None)
    yield from errors_of(lambda: check_model(config.model))
    for section in ("optimizer", "scheduler", "trainer"):
        yield from target_errors(section, section, getattr(config, section))
    for key, value, choices in (
        ("trainer.precision", config.trainer.get("precision"), _PRECISIONS),
        ("scheduler.interval", config.scheduler.get("interval"), ("step", "epoch")),
    ):
        if value is not None:
            yield from errors_of(partial(check_choice, key, value, choices))
    epochs = config.trainer.get("max_epochs")
    if isinstance(epochs, int) and epochs < 1:
        yield ConfigError(f"trainer.max_epochs={epochs}: expected 1 or more")
    yield from augment_errors(config.augment)
    yield from _list_errors(config)
    yield from idle_errors(config)


def _list_errors(config: TrainConfig) -> Iterator[ConfigError]:
    for name, callback in config.callbacks.items():
        errors = list(target_errors("callbacks", f"callbacks.{name}", callback))
        yield from errors or _monitor_errors(f"callbacks.{name}.monitor", callback.get("monitor"), config)
    for name, logger in config.logger.items():
        errors = list(target_errors("logger", f"logger.{name}", logger))
        yield from errors
        package = "" if errors else _LOGGER_PACKAGES.get(logger["_target_"].rpartition(".")[2], "")
        if package and find_spec(package) is None:
            yield ConfigError(f"logger={name}: {missing_extra(package)}")


def _monitor_errors(key: str, monitor: object, config: TrainConfig) -> Iterator[ConfigError]:
    if monitor is None or not str(monitor).startswith("val/") or config.evaluation.module is not None:
        return  # the user's own module may have other scores
    try:
        names = parse_class_rows(config.dataset).names
    except ConfigError:  # reported by dataset_errors
        return
    available = [*(f"val/{score}" for score in _VALIDATION_SCORES), *(f"val/iou_{name}" for name in names)]
    if monitor not in available:
        yield ConfigError(f"{key}={monitor}: unknown score {monitor!r}; {did_you_mean(monitor, available)}")


def _mode_errors(config: TrainConfig) -> Iterator[ConfigError]:
    if (config.mode == "leaderboard") != (config.sweep is not None):
        yield ConfigError(
            f"mode={config.mode} sweep={config.sweep}: expected mode=leaderboard with the folder of a sweep"
        )
    if (config.mode == "test") != (config.checkpoint is not None):
        yield ConfigError(
            f"mode={config.mode} checkpoint={config.checkpoint}: expected mode=test with a run folder or a "
            "checkpoint file"
        )
    if config.split is not None and config.mode != "test":
        yield ConfigError(f"split={config.split}: is for mode=test; scenes are split by dataset.split")


def _loss_errors(loss: Mapping[str, Any], mode: str | None) -> Iterator[ConfigError]:
    losses = registrations(sorted(_LOSSES_DIR.glob("*.py")), "register")
    try:
        name = check_name("loss", loss, losses)
    except ConfigError as error:
        yield error
        return
    yield from option_errors("loss", loss, losses[name].options, set(), {"name"})
    modes = losses[name].arguments["modes"]
    if mode is not None and mode not in modes:
        available = ", ".join(sorted(loss for loss in losses if mode in losses[loss].arguments["modes"]))
        yield IncompatibleChoiceError(
            f"loss={name} is for {modes[0]} data, the data set is {mode}; available: {available}"
        )
    for term, weight in (loss.get("terms") or {}).items():
        if term not in losses:
            yield ConfigError(f"loss.terms: unknown loss {term!r}; {did_you_mean(term, losses)}")
        elif isinstance(weight, str):
            yield ConfigError(
                f"loss.terms.{term}={weight!r}: expected a number, or a mapping of from, to, over"
            )


def check_model(model: Mapping[str, Any], modules: Iterable[str] | None = None) -> None:
    """Check name and options of a model against the source that registers it, without importing it.

    Args:
        model: name, options, and optionally `module`: dotted name of the user's module with the model.
        modules: modules with models beside geo_seg's own, in place of the one that `model` names.

    Raises:
        ConfigError: an unknown module or model, a missing option, or one that the model doesn't accept.
    """
    if modules is None:
        modules = () if model.get("module") is None else (str(model["module"]),)
    models = registered_models(modules)
    name = check_name("model", model, models)
    registration = models[name]
    of = registration.arguments.get("of")
    inherited = signature(of) if of else Signature({}, False)
    if inherited is None:
        return
    # without **kwargs: smp accepts and drops unknown options
    accepted = Signature({**inherited.parameters, **registration.options.parameters}, accepts_kwargs=False)
    filled = FROM_PYTHON["model"]
    raise_errors(
        [
            *option_errors("model", model, accepted, filled, {"name", "module"}),
            *(
                ConfigError(f"model.{option}: missing; {name} needs one ({parameter.annotation or 'any'})")
                for option, parameter in registration.options.parameters.items()
                if parameter.default is None and option not in {*model, *filled}
            ),
        ]
    )


def registered_models(modules: Iterable[str] = ()) -> dict[str, Registration]:
    """Return geo_seg's models and those of other modules by name, read from their source.

    Raises:
        ConfigError: a module doesn't exist, or is no Python.
    """
    files = sorted(_MODELS_DIR.glob("*.py"))
    for module in modules:
        file = module_file(module)
        if file is None:
            raise ConfigError(
                f"model.module={module}: no such module; expected the dotted name of a Python file beside "
                "train.py, in a folder of PYTHONPATH, or of an installed package"
            )
        files.append(file)
    try:
        return registrations(files, "register_model")
    except SyntaxError as error:
        raise ConfigError(f"model.module: {error.filename} line {error.lineno}: {error.msg}") from error
