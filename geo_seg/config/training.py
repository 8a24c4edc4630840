"""The schema of the configuration: what `config/*.yaml` and the command line may say. No torch in here."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geo_seg.config.augment import AugmentConfig
from geo_seg.config.dataset import DatasetConfig


@dataclass
class EncoderConfig:
    """How the encoder learns, beside the rest of the model.

    Attributes:
        freeze_epochs: epochs at the beginning in which its weights and statistics stay as they are.
        lr_factor: its learning rate is optimizer.lr times this.
        layer_decay: each of its layers has the rate of the next, towards the decoder, times this; up to 1.
    """

    freeze_epochs: int = 0
    lr_factor: float = 1.0
    layer_decay: float = 1.0


@dataclass
class AverageConfig:
    """A mean of the weights over the run, which is validated, kept and tested in place of the last weights.

    Attributes:
        name: "none"; "ema" (exponential, renewed at every step); "swa" (equal parts, one per epoch).
        decay: of ema: the part that the mean keeps at a step, from 0 to below 1; less in the first steps.
        start: of swa: share of the epochs, from 0 to below 1, after which weights are taken into the mean.
    """

    name: str = "none"
    decay: float = 0.999
    start: float = 0.75


@dataclass
class EvaluationConfig:
    """What is looked at in validation and tests.

    Attributes:
        boundary: width of the band along outlines in which boundary IoU is taken: below 1 a share of the
            evaluation window's diagonal, from 1 pixels; 0 leaves boundary IoU out.
        precision: what the model computes in where the splits of a run are scored, as in inference: "fp32",
            "bf16", "fp16", or "auto", which measures as inference does.
        draws: how often the places of a split are drawn again for the intervals of its scores; 0 leaves the
            intervals out.
    """

    boundary: float = 0.02
    draws: int = 1000
    precision: str = "fp32"


@dataclass
class TrainConfig:
    """What `python train.py` takes.

    Attributes:
        mode: "train"; "check", which looks at the data set; "test", which takes the scores of a checkpoint;
            or "leaderboard", which compares the runs of a sweep.
        checkpoint: what mode=test tests: a run folder (its best checkpoint) or a checkpoint file.
        split: what mode=test tests it on: "val" or "test"; null for both.
        sweep: the folder of that sweep; null unless mode=leaderboard.
        seed: of weights, windows and augmentation.
        debug: shows the traceback of an error.
        resume: a run folder in which training goes on where it was interrupted, with its own configuration;
            "auto" goes on in hydra.run.dir if that holds a run of this configuration, and else begins one.
        rerun: a run folder whose configuration a new run takes.
        save_minutes: how often a checkpoint is written within an epoch, beside the one at its end; 0 after
            every step.
        on_nan: what becomes of a loss that is not finite: "stop" ends the run, "skip" leaves the step out,
            "rollback" goes back to the weights of the last checkpoint and on with the next batch.
        find: "none", "lr" (a learning rate, in place of optimizer.lr), "batch_size" (the largest that the GPU
            holds, in place of dataset.batch_size) or "both", looked for before training.
        compile: has torch.compile translate the model: slow to begin, faster in long runs.
        dataset: what is learnt from.
        augment: random changes to training windows.
        model: name of an architecture and its options.
        loss: name of a loss and its options.
        optimizer: `_target_` of a torch optimizer and its options.
        scheduler: `_target_` of a learning-rate scheduler and its options, and the `interval` it steps at.
        encoder: see EncoderConfig.
        average: see AverageConfig.
        evaluation: see EvaluationConfig.
        trainer: options of Lightning's Trainer.
        callbacks: further Lightning callbacks by any name, each with a `_target_`.
        logger: Lightning loggers beside metrics.csv by any name, each with a `_target_`.
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
