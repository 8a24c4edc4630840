"""Warnings about classes with few labels and short epochs, with the options that help."""

from collections.abc import Mapping, Sequence

from geo_seg.config.dataset import DatasetConfig

_MIN_PIXELS = 500  # labelled pixels of a class in a split: a field of 22 x 22


def describe_few_labels(
    counts: Mapping[str, Sequence[int]], names: Sequence[str], config: DatasetConfig
) -> list[str]:
    """Return warnings about classes with few labelled pixels and about an epoch of few windows.

    Args:
        counts: labelled pixels of each class, for each split.
        names: class names.
        config: the data set.
    """
    notes = []
    sparse = [
        f"{name} ({', '.join(f'{pixels[number]:,} in {split}' for split, pixels in counts.items())})"
        for number, name in enumerate(names)
        if any(0 < pixels[number] < _MIN_PIXELS for pixels in counts.values())
    ]
    if sparse:
        notes.append(f"few labelled pixels: {', '.join(sparse)}; {_remedy(config)}")
    total = sum(counts.get("train", ()))
    windows = max(round(total / config.window**2), 1)
    if total and config.samples is None and config.windows_per_epoch is None and windows < config.batch_size:
        notes.append(
            f"the {total:,} labelled pixels of training fill {windows} windows of {config.window} pixels, so "
            f"that an epoch is a single step; dataset.windows_per_epoch={50 * config.batch_size} makes it 50"
        )
    return notes


def _remedy(config: DatasetConfig) -> str:
    parts = []
    if config.split.by == "blocks":
        parts.append(
            f"smaller dataset.split.block (now {config.split.block:g}), dataset.split.buffer (now "
            f"{config.split.buffer:g}) and dataset.window (now {config.window}) leave more to training"
        )
    if config.sampler != "balanced":
        parts.append("dataset.sampler=balanced draws windows around all classes alike")
    return "; ".join(parts) or "label more"
