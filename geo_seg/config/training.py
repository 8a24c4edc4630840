"""Schema of `python train.py`: the keys of `config/train.yaml` and its groups. No torch in here."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geo_seg.config.augment import AugmentConfig
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.fields import key
from geo_seg.config.inference import PRECISIONS


@dataclass
class EncoderConfig:
    """Training of the encoder, as opposed to the rest of the model.

    Attributes:
        freeze_epochs: first epochs in which its weights and batch norm statistics are frozen.
        lr_factor: its learning rate is optimizer.lr times this.
        layer_decay: factor between the learning rates of a layer and of the next one towards the decoder;
            above 0, up to 1.
    """

    freeze_epochs: int = key(0, at_least=0, in_fingerprint=True)
    lr_factor: float = key(1.0, at_least=0, in_fingerprint=True)
    layer_decay: float = key(1.0, above=0, at_most=1, in_fingerprint=True)


@dataclass
class AverageConfig:
    """Averaging of weights; the average is validated, saved and tested in place of the last weights.

    Attributes:
        name: "none"; "ema" (exponential, updated at every step); "swa" (equal weights, one per epoch).
        decay: of ema, from 0 to below 1; smaller in the first steps.
        start: of swa: fraction of the epochs, from 0 to below 1, after which averaging begins.
    """

    name: str = key("none", choices=("none", "ema", "swa"), in_fingerprint=True)
    decay: float = key(0.999, at_least=0, below=1, in_fingerprint=True)
    start: float = key(0.75, at_least=0, below=1, in_fingerprint=True)


@dataclass
class EvaluationConfig:
    """Metrics of validation and test.

    Attributes:
        boundary: width of the boundary region for boundary IoU: below 1 a fraction of the evaluation window's
            diagonal, from 1 pixels; 0 for no boundary IoU.
        precision: of the model while the splits of a run are scored, as in inference: "fp32", "bf16",
            "fp16", or "auto", which measures as inference does.
        module: dotted name of your own module, which is imported, so that its metrics are registered.
        draws: bootstrap resamples for the confidence intervals of scores; 0 for no intervals.
    """

    boundary: float = key(0.02, at_least=0, in_fingerprint=True)
    draws: int = key(1000, at_least=0, in_fingerprint=True)
    precision: str = key("fp32", choices=PRECISIONS, in_fingerprint=True)
    module: str | None = key(None, in_fingerprint=True)


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
        init: run folder or checkpoint of a trained model that this run starts from: its weights as far as
            they fit, the head by the names of the classes, the first layer by the names of the bands. null
            starts from model.weights.
        init_normalize: normalization of the bands that the model of `init` knows: "checkpoint" or "data" (of
            this data set).
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

    mode: str = key("train", choices=("train", "check", "test", "leaderboard"), in_fingerprint=True)
    checkpoint: str | None = key(None, in_fingerprint=True)
    split: str | None = key(None, choices=("val", "test"), in_fingerprint=True)
    sweep: str | None = key(None, in_fingerprint=True)
    seed: int = key(0, at_least=0, at_most=(1 << 32) - 1, in_fingerprint=True)
    debug: bool = key(False, in_fingerprint=False, on_resume=True)
    resume: str | None = key(None, in_fingerprint=False)
    rerun: str | None = key(None, in_fingerprint=False)
    init: str | None = key(None, in_fingerprint=True)
    init_normalize: str = key("checkpoint", choices=("checkpoint", "data"), in_fingerprint=True)
    save_minutes: float = key(10.0, at_least=0, in_fingerprint=False, on_resume=True)
    on_nan: str = key("stop", choices=("stop", "skip", "rollback"), on_resume=True, in_fingerprint=True)
    find: str = key("none", choices=("none", "lr", "batch_size", "both"), in_fingerprint=True)
    compile: bool = key(False, in_fingerprint=True)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: dict[str, Any] = key(MISSING, in_fingerprint=True)
    loss: dict[str, Any] = key(MISSING, in_fingerprint=True)
    optimizer: dict[str, Any] = key(MISSING, in_fingerprint=True)
    scheduler: dict[str, Any] = key(MISSING, in_fingerprint=True)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    trainer: dict[str, Any] = key(MISSING, on_resume=True, in_fingerprint=True)
    callbacks: dict[str, Any] = key(dict, in_fingerprint=True)
    logger: dict[str, Any] = key(dict, in_fingerprint=True)
