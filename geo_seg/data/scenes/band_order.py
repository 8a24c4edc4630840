"""The same band at the same place in all scenes: by name where names are known, whatever their order is."""

from collections.abc import Sequence
from dataclasses import replace

from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import DataError, OnError
from geo_seg.raster.band_names import assign_bands
from geo_seg.raster.reader import Band


def reorder_bands(
    scenes: Sequence[Scene], chosen: Sequence[Band] | None, wanted: Sequence[str] | None, on_error: OnError
) -> list[Scene]:
    """Read the bands of all scenes in the order of the model, or else of the first scene that names them.

    Args:
        scenes: whose numbers of bands are the same.
        chosen: the bands that the configuration asks for; None for all.
        wanted: names of the model's bands, "" where it knows none; None without a model.
        on_error: is told of a scene whose names contradict that order.
    """
    first = next((scene for scene in scenes if any(scene.band_names)), None)
    if wanted is None and first is not None:
        wanted = first.band_names
    if wanted is None or not any(wanted):
        return list(scenes)
    like = f"those of {first.name}" if first is not None else "the model's"
    made = []
    for scene in scenes:
        try:
            made.append(_ordered(scene, chosen, wanted, like) if len(scene.bands) == len(wanted) else scene)
        except DataError as error:
            on_error(error)
            made.append(scene)
    return made


def _ordered(scene: Scene, chosen: Sequence[Band] | None, wanted: Sequence[str], like: str) -> Scene:
    there = dict(zip(scene.bands, scene.band_names, strict=True))
    found = assign_bands(scene.name, wanted, scene.bands, there)
    notes = list(scene.notes)
    if found.bands != scene.bands:
        if chosen is not None:
            given = ",".join(map(str, chosen))
            raise DataError(
                f"{scene.name}: dataset.bands=[{given}] gives {_listed(scene.band_names)}, another order "
                f"than {like} ({_listed(wanted)}); names there are found whatever the order of the bands is"
            )
        notes.append(f"its bands are in another order than {like} and are read by name ({_listed(wanted)})")
    if found.numbered:
        listed = ", ".join(f"{name} = {number}" for name, number in found.numbered)
        notes.append(f"bands taken by number, for no name says which they are: {listed}")
    return replace(scene, bands=found.bands, notes=tuple(notes))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "one without a name" for name in names)
