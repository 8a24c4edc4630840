"""precision=auto on a CPU: the faster precision is measured on a few steps."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.backends import mps

from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.models.precision import supports_bf16
from geo_seg.training.module import SegmentationModule

_BATCH_SIZE = 2  # of a measured step; the ratio is that of larger batches
_MAX_SIDE = 128  # of its windows in pixels
_MEASURED_STEPS = 2  # after a first one that prepares kernels and buffers
_MAX_TIME_RATIO = 0.9  # of bfloat16 to float32: without a gain there is no reason to round

Build = Callable[[TrainConfig, SceneDataModule], SegmentationModule]


def choose_precision(
    config: TrainConfig, data: SceneDataModule, build: Build, log: Callable[[str], None]
) -> TrainConfig:
    """Return the configuration with trainer.precision=auto resolved, if it has to be measured.

    One process on a CPU with bfloat16 instructions measures it, with a model that is discarded. A resumed run
    reads it from its folder. On a GPU, and for several processes, a rule decides (see build.trainer_options).

    Args:
        config: configuration of the run.
        data: data module of the run.
        build: builds the module of a configuration.
        log: prints a line to the console.
    """
    accelerator, devices = (config.trainer.get(key) for key in ("accelerator", "devices"))
    on_cpu = accelerator == "cpu" or (
        accelerator == "auto" and not (torch.cuda.is_available() or mps.is_available())
    )
    single_process = devices in {1, "1"} and not config.compile
    if config.trainer.get("precision") != "auto" or not (on_cpu and single_process and supports_bf16("cpu")):
        return config
    module = build(config, data)
    float32_seconds, bfloat16_seconds = measure_steps(module, min(config.dataset.window, _MAX_SIDE))
    precision = "bf16-mixed" if bfloat16_seconds < _MAX_TIME_RATIO * float32_seconds else "32-true"
    ratio = float32_seconds / bfloat16_seconds
    log(f"precision: {precision} (bf16-mixed {ratio:.2f} times as fast as 32-true in a few steps)")
    return replace(config, trainer={**config.trainer, "precision": precision})


def measure_steps(module: SegmentationModule, window: int) -> tuple[float, float]:
    """Return the seconds of a training step in float32 and with bfloat16.

    Args:
        module: module, which is trained on noise and useless afterwards.
        window: side of the windows in pixels.
    """
    bands, task = len(module.metadata.mean), module.task
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(_BATCH_SIZE, bands, window, window, generator=generator)
    image = image.to(memory_format=torch.channels_last)
    labels = torch.randint(0, task.num_classes, (_BATCH_SIZE, window, window), generator=generator)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(1 + _MEASURED_STEPS):
        for use_bfloat16, times in seconds.items():  # in turn, so that a busy machine slows down both
            start = time.perf_counter()
            _step(module, image, labels, use_bfloat16)
            times.append(time.perf_counter() - start)
    return min(seconds[False][1:]), min(seconds[True][1:])


def _step(module: SegmentationModule, image: Tensor, labels: Tensor, use_bfloat16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16):
        loss = module.loss(module.model(image), labels)
    loss.backward()
    module.zero_grad()
