"""A training run: from the configuration to a folder with the model, its scores and a report."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import nn

import losses
from geo_seg import report
from geo_seg.checkpoint import Facts, versions
from geo_seg.config import TrainConfig
from geo_seg.data.augment import Augment
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import ConfigError
from geo_seg.identity import config_hash, identity, write_run_file
from geo_seg.models import build_model, has_bfloat16
from geo_seg.ranks import is_one_of_many, rank
from geo_seg.terminal import shows_bars
from geo_seg.training.average import WeightAverage
from geo_seg.training.callbacks import MetricsTable, callbacks_of, progress_bar
from geo_seg.training.find import find
from geo_seg.training.folder import SCORES, check_data, score_of_finished, taken_up, write_beginning
from geo_seg.training.guard import LossGuard
from geo_seg.training.introduction import introduce, quiet
from geo_seg.training.module import SegmentationModule
from geo_seg.training.pictures import picture_scenes
from geo_seg.training.saving import Checkpoints, WholeFile
from geo_seg.training.together import SameConfig
from geo_seg.whole import write_whole


def run(config: TrainConfig, folder: str | Path) -> float:
    """Trains, tests and reports.

    Args:
        config: what to do, checked.
        folder: the run folder; it must hold no earlier run, but for the one that config.resume goes on with.

    Returns:
        The best mean IoU on the validation scenes.

    Raises:
        ConfigError: the configuration doesn't fit the data or the machine.
        DataError: the data don't fit the configuration.
        TrainingError: the loss is not finite.
    """
    quiet()
    leads = rank() == 0
    console = Console(highlight=False, quiet=not leads)
    path = Path(folder)
    path, config, resumes = _place(config, Path(folder))
    if resumes and (score := score_of_finished(config, path)) is not None:
        console.print(f"{path}: this run is finished", markup=False, soft_wrap=True)
        return score
    torch.set_float32_matmul_precision("high")  # TF32 on the GPUs that have it
    data = SceneDataModule(config.dataset, config.seed)
    known = identity(config, data.fingerprint)
    if resumes:
        check_data(data.fingerprint, path)
    if config.find != "none":
        config = find(config, data, _module, _options(config, console), console)
    module = _module(config, data)
    table = MetricsTable(path / "metrics.csv", None if shows_bars(console) else console)
    trainer, best = _trainer(config, path, table, console, data)
    introduce(console, config, data, module.model, module.loss, path)
    if leads:
        write_beginning(config, known, path)
    _fit(trainer, module, data, best.last)
    validation = _conclude(config, data, module, trainer, best, table, path, console)
    if leads:
        write_run_file(path, known, finished=True)
    return validation


def _place(config: TrainConfig, folder: Path) -> tuple[Path, TrainConfig, bool]:
    """The run folder, the configuration, and whether the run goes on there; see taken_up."""
    if config.resume is None and rank() != 0:
        return folder, replace(config, rerun=None), False  # the first process looks for an earlier run
    if config.resume == "auto" and is_one_of_many():
        raise ConfigError("resume=auto: expected the folder of the run where several processes train")
    path = folder if config.resume in {None, "auto"} else Path(config.resume)
    return path, *taken_up(config, path)


def _module(config: TrainConfig, data: SceneDataModule) -> SegmentationModule:
    pl.seed_everything(config.seed, verbose=False)
    task = losses.Task(
        mode=config.dataset.mode,
        num_classes=len(data.table.names),
        ignore_index=data.table.ignore_index,
        class_weights=data.table.weights,
        class_counts=data.class_counts,
    )
    loss = _loss(config, task)
    model = build_model(config.model, len(data.bands.mean), task.channels)
    if config.compile:
        model.compile()
    return SegmentationModule(
        model,
        loss,
        task,
        _facts(config, data),
        Augment(config.augment, data.table.ignore_index),
        config.optimizer,
        config.scheduler,
        config.encoder,
        config.seed,
        max(len(data.scenes[split]) for split in ("val", "test")),
    )


def _loss(config: TrainConfig, task: losses.Task) -> nn.Module:
    options = {key: value for key, value in config.loss.items() if key != "name"}
    try:
        return losses.build(config.loss["name"], task, **options)
    except ValueError as error:
        raise ConfigError(f"loss={config.loss['name']}: {error}") from error


def _facts(config: TrainConfig, data: SceneDataModule) -> Facts:
    return Facts(
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
        model=dict(config.model),
        config=asdict(config),
        versions=versions(),
    )


def _trainer(
    config: TrainConfig, path: Path, table: MetricsTable, console: Console, data: SceneDataModule
) -> tuple[pl.Trainer, Checkpoints]:
    options = _options(config, console)
    validates = options.get("limit_val_batches") != 0

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    folder = path / "checkpoints"
    names = [scene.name for scene in data.scenes["train"]]
    guard = LossGuard(config.on_nan, names, path / "not_finite", folder / "last.ckpt", say)
    best = Checkpoints(folder, "val/miou" if validates else None, config.save_minutes, guard.look, say)
    same = SameConfig(config_hash(config))
    callbacks = [same, table, guard, best, *callbacks_of(config.callbacks, validates)]
    if config.average.name != "none":
        callbacks.append(WeightAverage(config.average))
    bars = shows_bars(console)
    if bars:
        callbacks.append(progress_bar())
    logger = instantiate(config.logger, save_dir=str(path)) if config.logger else False
    try:
        trainer = pl.Trainer(
            **{
                "enable_progress_bar": bars,
                "enable_model_summary": False,
                "log_every_n_steps": min(len(data.train_dataloader()), 10),
                **options,
            },
            callbacks=callbacks,
            plugins=[WholeFile()],
            logger=logger,
            default_root_dir=path,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module shares the windows out
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"trainer: {str(error).splitlines()[0]}") from error
    return trainer, best


def _options(config: TrainConfig, console: Console) -> dict[str, Any]:
    """Options of the Trainer that suit this machine."""
    options = {key: value for key, value in config.trainer.items() if key != "_target_"}
    accelerator = str(options.get("accelerator"))
    if options.get("precision") == "auto":
        options["precision"] = _precision(accelerator)
    if options.get("sync_batchnorm") and (accelerator == "cpu" or not torch.cuda.is_available()):
        console.print("note: trainer.sync_batchnorm needs GPUs; each process normalises its own batches")
        options["sync_batchnorm"] = False
    shared = any(word in str(options.get("strategy")) for word in ("fsdp", "deepspeed"))
    if shared and (config.average.name != "none" or config.on_nan == "rollback"):
        raise ConfigError(
            "trainer.strategy: average and on_nan=rollback need whole weights; take trainer=ddp"
        )
    return options


def _precision(accelerator: str) -> str:
    """The fastest precision that is safe on this machine."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if has_bfloat16("cuda") else "16-mixed"
    return "bf16-mixed" if has_bfloat16("cpu") else "32-true"


def _fit(trainer: pl.Trainer, module: SegmentationModule, data: SceneDataModule, last: Path) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ConfigError(
                "this model needs dataset.batch_size=2 or more to normalise its features"
            ) from error
        raise


def _conclude(
    config: TrainConfig,
    data: SceneDataModule,
    module: SegmentationModule,
    trainer: pl.Trainer,
    best: Checkpoints,
    table: MetricsTable,
    path: Path,
    console: Console,
) -> float:
    split = "test" if data.scenes["test"] else "val"
    validation = float("nan") if best.best_model_score is None else best.best_model_score
    rows = list(table.rows)  # reading the best checkpoint turns callbacks back to its epoch
    found: dict[str, Any] = {"split": split}
    scenes: dict[str, Any] = {}
    for name in dict.fromkeys(("val", split)):
        loader = data.test_dataloader() if name == "test" else data.val_dataloader()
        trainer.test(module, loader, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
        found[name] = module.test_scores
        scenes[name] = [
            {"name": scene.name, "confusion": counts.tolist()}
            for scene, counts in zip(data.scenes[name], module.test_scenes, strict=False)
        ]
    if not trainer.is_global_zero:
        return validation
    found |= {
        "best_val_miou": validation if validation == validation else None,  # noqa: PLR0124 - not NaN
        "epochs": len(rows),
        "steps": trainer.global_step,
        "unreadable": data.unreadable,
    }
    write_whole(path / "scenes.json", json.dumps(scenes))
    pictures = picture_scenes(module, data, split, path / "figures")
    report.write(path, config, module.facts, found, rows, pictures)
    scene = data.scenes[split][0].image.path
    table_of_scores = report.score_table(module.test_scores, f"{split} scenes")
    console.print(table_of_scores)
    closing = (
        f"report      {path / 'report.html'}\n"
        f"checkpoint  {best.best_model_path}\n"
        f"go on with  python inference.py checkpoint={path} input={scene} output={path / 'predictions'}"
    )
    console.print(closing, soft_wrap=True, markup=False)
    with (path / "summary.txt").open("w", encoding="utf-8") as file:
        Console(file=file, width=100).print(table_of_scores, closing, soft_wrap=True, markup=False)
    write_whole(path / SCORES, json.dumps(found, indent=2))
    return validation
