"""Schema of `python train.py`: the keys of `config/train.yaml` and its groups. No torch in here."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geo_seg.config.augment import AugmentConfig
from geo_seg.config.dataset import DatasetConfig


@dataclass
class EncoderConfig:
    """Training of the encoder, as opposed to the rest of the model.

    Attributes:
        freeze_epochs: first epochs in which its weights and batch norm statistics are frozen.
        lr_factor: its learning rate is optimizer.lr times this.
        layer_decay: factor between the learning rates of a layer and of the next one towards the decoder;
            above 0, up to 1.
    """

    freeze_epochs: int = 0
    lr_factor: float = 1.0
    layer_decay: float = 1.0


@dataclass
class AverageConfig:
    """Averaging of weights; the average is validated, saved and tested in place of the last weights.

    Attributes:
        name: "none"; "ema" (exponential, updated at every step); "swa" (equal weights, one per epoch).
        decay: of ema, from 0 to below 1; smaller in the first steps.
        start: of swa: fraction of the epochs, from 0 to below 1, after which averaging begins.
    """

    name: str = "none"
    decay: float = 0.999
    start: float = 0.75


@dataclass
class EvaluationConfig:
    """Metrics of validation and test.

    Attributes:
        boundary: width of the boundary region for boundary IoU: below 1 a fraction of the evaluation window's
            diagonal, from 1 pixels; 0 for no boundary IoU.
        precision: of the model while the splits of a run are scored, as in inference: "fp32", "bf16",
            "fp16", or "auto", which measures as inference does.
        draws: bootstrap resamples for the confidence intervals of scores; 0 for no intervals.
    """

    boundary: float = 0.02
    draws: int = 1000
    precision: str = "fp32"


@dataclass
class TrainConfig:
    """Configuration of `python train.py`.

    Attributes:
        mode: "train"; "check", which examines the data set; "test", which evaluates a checkpoint; or
            "leaderboard", which compares the runs of a sweep.
        checkpoint: of mode=test: a run folder (its best checkpoint) or a checkpoint file.
        split: of mode=test: "val" or "test"; null for both.
        sweep: of mode=leaderboard: the folder of the sweep; null otherwise.
        seed: of weights, windows and augmentation.
        debug: whether to show the traceback of an error.
        resume: folder of an interrupted run, which is continued there with its own configuration; "auto"
            continues in hydra.run.dir if that has a run of this configuration, otherwise starts one.
        rerun: run folder whose configuration is used for a new run.
        save_minutes: interval of checkpoints within an epoch, in addition to the one at its end; 0 saves
            after every step.
        on_nan: reaction to a loss that is not finite: "stop" ends the run, "skip" skips the step, "rollback"
            restores the weights of the last checkpoint and continues with the next batch.
        find: what is tuned before training: "none", "lr" (replaces optimizer.lr), "batch_size" (the largest
            that fits on the GPU, replaces dataset.batch_size) or "both".
        compile: whether to use torch.compile: slow to start, faster in long runs.
        dataset: the data set.
        augment: random augmentation of training windows.
        model: name of an architecture and its options.
        loss: name of a loss and its options.
        optimizer: `_target_` of a torch optimizer and its options.
        scheduler: `_target_` of a learning rate scheduler and its options, and the `interval` of its steps.
        encoder: see EncoderConfig.
        average: see AverageConfig.
        evaluation: see EvaluationConfig.
        trainer: options of Lightning's Trainer.
        callbacks: additional Lightning callbacks under any names, each with a `_target_`.
        logger: Lightning loggers in addition to metrics.csv under any names, each with a `_target_`.
    """

    mode: str = "train"
    checkpoint: str | None = None
    split: str | None = None
    sweep: str | None = None
    seed: int = 0
    debug: bool = False
    resume: str | None = None
    rerun: str | None = None
    save_minutes: float = 10.0
    on_nan: str = "stop"
    find: str = "none"
    compile: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    trainer: dict[str, Any] = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
