"""precision=auto on a CPU: what is faster there is measured on a few steps."""

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

_WINDOWS = 2  # of a step that is measured; the ratio is that of larger batches
_SIDE = 128  # of these windows in pixels at most
_STEPS = 2  # after one that prepares kernels and buffers
_GAIN = 0.9  # of the time in float32, that bfloat16 must stay below: a draw is no reason to round

Build = Callable[[TrainConfig, SceneDataModule], SegmentationModule]


def choose_precision(
    config: TrainConfig, data: SceneDataModule, build: Build, say: Callable[[str], None]
) -> TrainConfig:
    """Return the configuration with what trainer.precision=auto comes to, where that is to be measured.

    It is measured by one process on a CPU with instructions for bfloat16, with a model that is thrown away.
    A run that is taken up finds it in its folder. On a GPU, and for several processes, a rule decides.

    Args:
        config: of the run.
        data: its data.
        build: makes the module of a configuration.
        say: is told what was measured.
    """
    accelerator, devices = (config.trainer.get(key) for key in ("accelerator", "devices"))
    on_cpu = accelerator == "cpu" or (
        accelerator == "auto" and not (torch.cuda.is_available() or mps.is_available())
    )
    alone = devices in {1, "1"} and not config.compile
    if config.trainer.get("precision") != "auto" or not (on_cpu and alone and supports_bf16("cpu")):
        return config
    module = build(config, data)
    full, half = measure_steps(module, min(config.dataset.window, _SIDE))
    chosen = "bf16-mixed" if half < _GAIN * full else "32-true"
    say(f"precision: {chosen} (bf16-mixed {full / half:.2f} times as fast as 32-true in a few steps)")
    return replace(config, trainer={**config.trainer, "precision": chosen})


def measure_steps(module: SegmentationModule, window: int) -> tuple[float, float]:
    """Return the seconds of a step forward and backward in float32 and with bfloat16.

    Args:
        module: is trained on noise, and not to be used afterwards.
        window: side in pixels.
    """
    bands, task = len(module.metadata.mean), module.task
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(_WINDOWS, bands, window, window, generator=generator)
    image = image.to(memory_format=torch.channels_last)
    labels = torch.randint(0, task.num_classes, (_WINDOWS, window, window), generator=generator)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(1 + _STEPS):
        for half, times in seconds.items():  # in turn, so that a busy machine slows down both
            begin = time.perf_counter()
            _step(module, image, labels, half)
            times.append(time.perf_counter() - begin)
    return min(seconds[False][1:]), min(seconds[True][1:])


def _step(module: SegmentationModule, image: Tensor, labels: Tensor, half: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = module.loss(module.model(image), labels)
    loss.backward()
    module.zero_grad()
