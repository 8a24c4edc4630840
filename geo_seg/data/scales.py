"""Scale and offset that files or STAC items declare: values are read as stored, so they must be the same."""

from collections.abc import Iterator, Sequence

from geo_seg.data.scenes.scene import Scene
from geo_seg.raster.scale_offset import ScaleOffset, scale_offset

SCALE_REMEDY = "gdal_translate -unscale -ot Float32 writes what values mean"
"""How rasters are brought to one scale."""


def describe_scales(scenes: Sequence[Scene]) -> Iterator[str]:
    """Tell of scenes in which the same stored value means something else.

    Args:
        scenes: each once.

    Yields:
        One line, or none where all agree.
    """
    found: dict[ScaleOffset, list[str]] = {}
    for scene in scenes:
        found.setdefault(scale_offset(scene.image, scene.bands), []).append(scene.name)
    if len(found) > 1:
        kinds = [f"{format_scales(values)} in {_some(names)}" for values, names in found.items()]
        yield (
            f"scenes differ in scale and offset: {'; '.join(kinds)}; values are taken as they are stored, so "
            f"that the same one means something else; bring all images to one scale ({SCALE_REMEDY})"
        )


def common_scale(scenes: Sequence[Scene]) -> list[list[float]] | None:
    """Scale and offset of each band that all scenes share, in plain lists; None if they don't agree."""
    found = {scale_offset(scene.image, scene.bands) for scene in scenes}
    return [list(pair) for pair in found.pop()] if len(found) == 1 else None


def format_scales(values: Sequence[tuple[float, float]]) -> str:
    """Scale and offset in words: once if all bands have the same."""
    scales, offsets = ([pair[i] for pair in values] for i in (0, 1))
    if set(values) == {(1.0, 0.0)}:
        return "none"
    return f"scale {_listed(scales)} and offset {_listed(offsets)}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.9g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
