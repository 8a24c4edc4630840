"""Console summary of a run before training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

import losses
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.few_labels import describe_few_labels
from geo_seg.data.scales import describe_scales
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.undeclared_nodata import describe_dark_borders, describe_undeclared_nodata
from geo_seg.models.layers import count_trainable_parameters
from geo_seg.models.protocol import Model
from geo_seg.raster.validity import IMPLAUSIBLE


def print_run_summary(
    console: Console,
    config: TrainConfig,
    data: SceneDataModule,
    model: Model,
    loss: losses.Loss,
    path: Path,
) -> None:
    """Print what is going to be trained on which data, and notes on the data.

    Args:
        console: console for the summary.
        config: configuration of the run.
        data: data module with the scenes.
        model: model, for its number of weights.
        loss: loss, for its class weights.
        path: the run folder.
    """
    counts = ", ".join(f"{len(scenes)} {name}" for name, scenes in data.scenes.items())
    total = sum(data.class_counts)
    fractions = ", ".join(
        f"{name} {count / total:.1%}" for name, count in zip(data.table.names, data.class_counts, strict=True)
    )
    console.print(
        f"{config.dataset.name}: scenes {counts}; {len(data.bands.mean)} bands of {data.dtype}\n"
        f"classes in train: {fractions}\n"
        f"{config.model['name']} {config.model.get('encoder', '')}".rstrip()
        + " "
        f"({count_trainable_parameters(model) / 1e6:.1f} M weights), "
        f"loss {config.loss['name']}; run folder {path}",
        markup=False,
        soft_wrap=True,
    )
    if model.origin:
        console.print(f"note: {model.origin}", markup=False, soft_wrap=True)
    weight_tensors = (getattr(term, "class_weights", None) for term in loss.modules())
    for values in (tensor for tensor in weight_tensors if tensor is not None):
        listed = ", ".join(
            f"{name} {value:.3g}" for name, value in zip(data.table.names, values.tolist(), strict=True)
        )
        console.print(f"class weights: {listed}", markup=False, soft_wrap=True)
    if size_note := window_size_note(data.scenes["train"], config.dataset.window):
        console.print(f"note: {size_note}", markup=False, soft_wrap=True)
    absent_classes = [n for n, count in zip(data.table.names, data.class_counts, strict=True) if not count]
    if absent_classes:
        console.print(
            f"note: no training pixel has class {', '.join(absent_classes)}", markup=False, soft_wrap=True
        )
    counts_by_split = {
        name: sum(
            (index.class_counts.classes for index in split_index), np.zeros(len(data.table.names), np.int64)
        ).tolist()
        for name, split_index in data.index.items()
        if split_index
    }
    for note in describe_few_labels(counts_by_split, data.table.names, config.dataset):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if data.left_out:
        console.print(f"note: {data.left_out}", markup=False, soft_wrap=True)
    if data.leak:
        console.print(f"note: {data.leak}", markup=False, soft_wrap=True)
    for line in data_notes(data):
        console.print(f"note: {line}", markup=False, soft_wrap=True)


def data_notes(data: SceneDataModule) -> Iterator[str]:
    """Yield notes on the scenes, for training and evaluation.

    Args:
        data: data module with the scenes.
    """
    scenes, bands = data.whole
    yield from describe_scales(scenes)
    yield from describe_undeclared_nodata(scenes, bands, data.config)
    yield from describe_dark_borders(scenes, bands, data.config)
    for name, count in data.implausible.items():
        yield f"{name}: {count} px {IMPLAUSIBLE}"
    scenes_by_note: dict[str, list[str]] = {}
    for scene in scenes:
        for note in scene.notes:
            scenes_by_note.setdefault(note, []).append(scene.name)
    for note, names in scenes_by_note.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more}: {note}"


def window_size_note(scenes: Sequence[Scene], window: int) -> str:
    """Return a note on scenes that are smaller than a window; "" if none is.

    Args:
        scenes: training scenes.
        window: side of a window in pixels.
    """
    small_scenes = [scene for scene in scenes if min(scene.image.height, scene.image.width) < window]
    if not small_scenes:
        return ""
    largest = max(scenes, key=lambda scene: max(scene.image.height, scene.image.width))
    side = -(-max(largest.image.height, largest.image.width) // 32) * 32  # models take multiples of 32
    if side < window:
        return (
            f"dataset.window={window} is larger than every scene, which wastes memory; the "
            f"largest, {largest.name}, has {largest.image.height} x {largest.image.width} pixels: "
            f"dataset.window={side} holds it"
        )
    return (
        f"{len(small_scenes)} scenes are smaller than dataset.window={window} and are padded with ignored "
        f"pixels, {small_scenes[0].name} for one"
    )
