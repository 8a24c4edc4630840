"""One band order for all scenes: by band name where the files give names."""

from collections.abc import Sequence
from dataclasses import replace

from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import DataError, OnError
from geo_seg.raster.band_names import assign_bands
from geo_seg.raster.reader import Band


def reorder_bands(
    scenes: Sequence[Scene],
    selected: Sequence[Band] | None,
    model_names: Sequence[str] | None,
    on_error: OnError,
) -> list[Scene]:
    """Return the scenes with their bands in the order of the model, or of the first scene with band names.

    Args:
        scenes: scenes with equal numbers of bands.
        selected: bands selected by the configuration; None for all.
        model_names: names of the model's bands, "" for a band without a name; None without a model.
        on_error: called with an error if the names of a scene contradict that order.
    """
    named = next((scene for scene in scenes if any(scene.band_names)), None)
    if model_names is None and named is not None:
        model_names = named.band_names
    if model_names is None or not any(model_names):
        return list(scenes)
    reference = f"those of {named.name}" if named is not None else "the model's"
    reordered = []
    for scene in scenes:
        try:
            reordered.append(
                _reorder(scene, selected, model_names, reference)
                if len(scene.bands) == len(model_names)
                else scene
            )
        except DataError as error:
            on_error(error)
            reordered.append(scene)
    return reordered


def _reorder(
    scene: Scene, selected: Sequence[Band] | None, model_names: Sequence[str], reference: str
) -> Scene:
    names = dict(zip(scene.bands, scene.band_names, strict=True))
    assigned = assign_bands(scene.name, model_names, scene.bands, names)
    notes = list(scene.notes)
    if assigned.bands != scene.bands:
        if selected is not None:
            numbers = ",".join(map(str, selected))
            raise DataError(
                f"{scene.name}: dataset.bands=[{numbers}] gives {_join_names(scene.band_names)}, another "
                f"order than {reference} ({_join_names(model_names)}); leave it out: bands are matched by "
                "name"
            )
        notes.append(
            f"its bands are in another order than {reference} and are read by name "
            f"({_join_names(model_names)})"
        )
    if assigned.numbered:
        assignments = ", ".join(f"{name} = {number}" for name, number in assigned.numbered)
        notes.append(f"bands taken by number, for no name says which they are: {assignments}")
    return replace(scene, bands=assigned.bands, notes=tuple(notes))


def _join_names(names: Sequence[str]) -> str:
    return ", ".join(name or "an unnamed band" for name in names)
