"""What to know of a data set with few labels, and which number to turn."""

from collections.abc import Mapping, Sequence

from geo_seg.config.dataset import DatasetConfig

_FEW = 500  # labelled pixels of a class in a split: a field of 22 x 22


def describe_few_labels(
    counts: Mapping[str, Sequence[int]], names: Sequence[str], config: DatasetConfig
) -> list[str]:
    """Return notes on classes with few labelled pixels, and on an epoch of few windows.

    Args:
        counts: per split, labelled pixels of each class.
        names: of the classes.
        config: of the data set.
    """
    notes = []
    few = [
        f"{name} ({', '.join(f'{own[number]:,} in {split}' for split, own in counts.items())})"
        for number, name in enumerate(names)
        if any(0 < own[number] < _FEW for own in counts.values())
    ]
    if few:
        notes.append(f"few labelled pixels: {', '.join(few)}; {_advice(config)}")
    total = sum(counts.get("train", ()))
    windows = max(round(total / config.window**2), 1)
    if total and config.samples is None and config.windows_per_epoch is None and windows < config.batch_size:
        notes.append(
            f"the {total:,} labelled pixels of training fill {windows} windows of {config.window} pixels, so "
            f"that an epoch is a single step; dataset.windows_per_epoch={50 * config.batch_size} makes it 50"
        )
    return notes


def _advice(config: DatasetConfig) -> str:
    parts = []
    if config.split.by == "blocks":
        parts.append(
            f"smaller dataset.split.block (now {config.split.block:g}), dataset.split.buffer (now "
            f"{config.split.buffer:g}) and dataset.window (now {config.window}) leave more to training"
        )
    if config.sampler != "balanced":
        parts.append("dataset.sampler=balanced draws windows around all classes alike")
    return "; ".join(parts) or "label more"
