"""Scale and offset declared by files or STAC items, which must agree: values are read as stored."""

from collections.abc import Iterator, Sequence

from geo_seg.data.scenes.scene import Scene, first_of
from geo_seg.raster.reader import ScaleOffset

SCALE_REMEDY = "gdal_translate -unscale -ot Float32 writes what values mean"
"""Command that applies scale and offset, for messages."""


def describe_scales(scenes: Sequence[Scene]) -> Iterator[str]:
    """Warn about scenes whose scale or offset differs.

    Args:
        scenes: distinct scenes.

    Yields:
        One line, or none if all scenes agree.
    """
    by_scale: dict[ScaleOffset, list[str]] = {}
    for scene in scenes:
        by_scale.setdefault(scene.image.scale_offset(scene.bands), []).append(scene.name)
    if len(by_scale) > 1:
        groups = [f"{format_scales(values)} in {first_of(names)}" for values, names in by_scale.items()]
        yield (
            f"scenes differ in scale and offset: {'; '.join(groups)}; values are read as stored, so that "
            f"equal values differ in meaning; convert all images to one scale ({SCALE_REMEDY})"
        )


def common_scale(scenes: Sequence[Scene]) -> list[list[float]] | None:
    """Return scale and offset of each band as plain lists, or None if the scenes differ."""
    scales = {scene.image.scale_offset(scene.bands) for scene in scenes}
    return [list(pair) for pair in scales.pop()] if len(scales) == 1 else None


def format_scales(values: Sequence[tuple[float, float]]) -> str:
    """Format scale and offset for a message, once if all bands agree."""
    scales, offsets = ([pair[i] for pair in values] for i in (0, 1))
    if set(values) == {(1.0, 0.0)}:
        return "none"
    return f"scale {_join(scales)} and offset {_join(offsets)}"


def _join(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.9g}" for value in (values[:1] if len(set(values)) == 1 else values))
