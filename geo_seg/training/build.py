"""Construction of a run's objects: module, predictor, Trainer."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console

import losses
from geo_seg.checkpoints.checkpoint import Checkpoint, CheckpointMetadata, library_versions
from geo_seg.checkpoints.initial_weights import start_from
from geo_seg.config.training import TrainConfig
from geo_seg.data.augment import Augment
from geo_seg.data.band_statistics import value_span
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scales import common_scale
from geo_seg.data.scenes.scene import mark_of
from geo_seg.errors import ConfigError
from geo_seg.models.precision import has_amx_tiles, keep_depthwise_fp32, supports_bf16
from geo_seg.models.registry import build_model
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.runtime.redaction import redact_config
from geo_seg.training.module import SegmentationModule


def build_module(
    config: TrainConfig, data: SceneDataModule, has_checkpoint: bool = False
) -> SegmentationModule:
    """Build the module: model, loss, augmentation, optimizer options.

    Args:
        config: configuration of the run.
        data: data set whose classes and bands the model is for.
        has_checkpoint: whether a checkpoint of the run will replace the weights that it starts from.

    Raises:
        ConfigError: the configuration does not fit the data.
    """
    pl.seed_everything(config.seed, verbose=False)
    task = losses.Task(
        mode=config.dataset.mode,
        num_classes=len(data.table.names),
        ignore_index=data.table.ignore_index,
        class_weights=data.table.weights,
        class_counts=data.class_counts,
        image_pixels=data.image_pixels,
    )
    model = build_model(config.model, len(data.bands.mean), task.channels)
    metadata = _metadata(config, data)
    if config.init is not None and not has_checkpoint:
        keeps_normalization = config.init_normalize == "checkpoint"
        metadata, model.origin = start_from(model, metadata, config.init, keeps_normalization)
    if config.compile:
        model.compile()
    else:
        keep_depthwise_fp32(model)
    return SegmentationModule(
        model,
        _build_loss(config, task),
        task,
        metadata,
        Augment(config.augment, data.table.ignore_index, data.border),
        config.optimizer,
        config.scheduler,
        config.encoder,
        config.evaluation,
        config.seed,
        len(data.scenes["val"]),
    )


def build_predictor(
    config: TrainConfig, trainer: pl.Trainer, trained: Checkpoint, console: Console
) -> ScenePredictor:
    """Build the predictor of whole scenes, on the Trainer's device.

    Args:
        config: configuration of the run; gives precision and nodata.
        trainer: gives the device and the number of processes.
        trained: checkpoint of the model.
        console: console for notes on measurements.
    """
    return ScenePredictor(
        trained,
        config.dataset,
        trainer.strategy.root_device,
        config.evaluation.precision,
        lambda line: console.print(line, markup=False, soft_wrap=True),
        trainer.world_size,
    )


def _build_loss(config: TrainConfig, task: losses.Task) -> losses.Loss:
    options = {key: value for key, value in config.loss.items() if key != "name"}
    try:
        return losses.build(config.loss["name"], task, **options)
    except ValueError as error:
        raise ConfigError(f"loss={config.loss['name']}: {error}") from error


def _metadata(config: TrainConfig, data: SceneDataModule) -> CheckpointMetadata:
    shareable_config = redact_config(asdict(config))
    return CheckpointMetadata(
        mode=config.dataset.mode,
        class_names=list(data.table.names),
        class_colors=[list(color) for color in data.table.colors],
        ignore_index=data.table.ignore_index,
        bands=config.dataset.bands,
        band_names=data.band_names,
        nodata=config.dataset.nodata,
        zero_is_nodata=config.dataset.zero_is_nodata,
        dtype=data.dtype,
        mean=list(data.bands.mean),
        std=list(data.bands.std),
        window=config.dataset.window,
        model=shareable_config["model"],
        config=shareable_config,
        versions=library_versions(),
        scale_offset=common_scale(data.scenes["train"]),
        seen=value_span([index.bands for index in data.index["train"]]),
        trained_on=sorted({mark_of(scene.image, scene.name) for scene in data.scenes["train"]}),
    )


def trainer_options(config: TrainConfig, console: Console) -> dict[str, Any]:
    """Return the options of the Trainer for this machine."""
    options = {key: value for key, value in config.trainer.items() if key != "_target_"}
    accelerator = str(options.get("accelerator"))
    if options.get("precision") == "auto":
        options["precision"] = _precision(accelerator)
    if options.get("sync_batchnorm") and (accelerator == "cpu" or not torch.cuda.is_available()):
        console.print("note: trainer.sync_batchnorm needs GPUs; each process normalises its own batches")
        options["sync_batchnorm"] = False
    is_sharded = any(word in str(options.get("strategy")) for word in ("fsdp", "deepspeed"))
    if is_sharded and (config.average.name != "none" or config.on_nan == "rollback"):
        raise ConfigError(
            "trainer.strategy: average and on_nan=rollback need whole weights; take trainer=ddp"
        )
    return options


def build_trainer(
    options: Mapping[str, Any],
    **fixed: Any,  # arguments of the Trainer
) -> pl.Trainer:
    """Build a Trainer; the data module distributes the windows over its processes.

    Args:
        options: configured arguments of the Trainer.
        fixed: further arguments, which the options must not repeat.

    Raises:
        ConfigError: the Trainer refuses an option.
    """
    try:
        return pl.Trainer(**options, **fixed, use_distributed_sampler=False)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"trainer: {str(error).splitlines()[0]}") from error


def _precision(accelerator: str) -> str:
    """Return the precision of a machine where none was measured; see choose_precision."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if supports_bf16("cuda") else "16-mixed"
    # with AVX-512 alone bfloat16 is slower than float32
    return "bf16-mixed" if supports_bf16("cpu") and has_amx_tiles() else "32-true"
