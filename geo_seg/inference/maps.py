"""The files of a map: classes with colours and names, and probabilities beside them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import geo_seg
from geo_seg.checkpoint import Checkpoint
from geo_seg.inference.inputs import CLASSES, PROBABILITIES
from geo_seg.inference.predict import SCALE, Strip
from geo_seg.writing import Geometry, MapWriter, name_classes, unfinished

_TAGS = {"TIFFTAG_SOFTWARE": f"geo_seg {geo_seg.__version__}"}
_NO_PROBABILITY = 255


class MapFiles:
    """The open files of one map.

    Args:
        classes: takes class ids.
        probabilities: takes probabilities, if they are asked for.
        num_classes: number of classes.

    Attributes:
        counts: (classes,) pixels of each class that were written.
    """

    def __init__(self, classes: MapWriter, probabilities: MapWriter | None, num_classes: int) -> None:
        self._classes = classes
        self._probabilities = probabilities
        self._nodata, self._dtype = class_storage(num_classes)
        self.counts: NDArray[np.int64] = np.zeros(num_classes, np.int64)

    def append(self, strip: Strip) -> None:
        """Writes the next rows.

        Raises:
            DataError: the disk is full, or doesn't take them otherwise.
        """
        self.counts += np.bincount(strip.classes[strip.valid], minlength=len(self.counts))
        self._classes.append(np.where(strip.valid, strip.classes, self._nodata).astype(self._dtype)[None])
        if self._probabilities is not None:
            self._probabilities.append(np.where(strip.valid, strip.probabilities, np.uint8(_NO_PROBABILITY)))


def class_storage(num_classes: int) -> tuple[int, str]:
    """The nodata value of a class raster and its type: the narrowest with a value that no class has."""
    return (255, "uint8") if num_classes <= 255 else (65535, "uint16")


@contextmanager
def open_map(
    file: Path, geometry: Geometry, checkpoint: Checkpoint, probabilities: str
) -> Iterator[MapFiles]:
    """Opens the files of a map; they appear when the block ends well, and never half-written.

    Args:
        file: the class raster; probabilities go beside it.
        geometry: grid of both.
        checkpoint: names and colours of the classes.
        probabilities: "none", "top" or "all".

    Raises:
        DataError: they can't be written.
    """
    names, colors = checkpoint.class_names, checkpoint.class_colors
    nodata, dtype = class_storage(len(names))
    shares = file.name.removesuffix(CLASSES) + PROBABILITIES
    files = [f"{file.name}.aux.xml", file.name]  # the class raster comes last: then all is there
    with unfinished(file.parent, files if probabilities == "none" else [shares, *files]) as hidden:
        with ExitStack() as stack:
            target = stack.enter_context(
                MapWriter(hidden / file.name, geometry, count=1, dtype=dtype, nodata=nodata, tags=_TAGS)
            )
            target.target.write_colormap(1, dict(enumerate(colors)))
            _describe(target, {"class": {f"CLASS_{index}": name for index, name in enumerate(names)}})
            beside = None
            if probabilities != "none":
                bands = names if probabilities == "all" else ("probability of the class",)
                beside = stack.enter_context(
                    MapWriter(
                        hidden / shares,
                        geometry,
                        count=len(bands),
                        dtype="uint8",
                        nodata=_NO_PROBABILITY,
                        tags=_TAGS,
                    )
                )
                _describe(beside, {name: {} for name in bands})
                beside.target.scales = (1 / SCALE,) * len(bands)
            yield MapFiles(target, beside, len(names))
        name_classes(hidden / file.name, names, colors)


def _describe(writer: MapWriter, bands: Mapping[str, Mapping[str, str]]) -> None:
    for band, (name, tags) in enumerate(bands.items(), 1):
        writer.target.set_band_description(band, name)
        writer.target.update_tags(band, **tags)
