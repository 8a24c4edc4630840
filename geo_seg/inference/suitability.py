"""Whether a raster is such as the model has learnt from: told from its header and a sample of its windows."""

from collections.abc import Iterator, Sequence

import numpy as np

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.data.scales import SCALE_REMEDY, format_scales
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.reader import RasterInfo, RasterReader
from geo_seg.raster.scale_offset import ScaleOffset, scale_offset
from geo_seg.tiling import Window

_SIDE = 128  # pixels of a window
_PLACES = 4  # windows along each axis at most
_FLAT = 1 / 2000  # of the range in training: in all bands at once, it is another scale that begins at 0, too
_MOST = 0.5  # share of the pixels: of training images, a hundredth lie outside


class Suitability:
    """What rasters are compared with: the images that the model has learnt from, and the first raster.

    Args:
        checkpoint: of the model.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._facts = checkpoint.metadata
        self._declared: tuple[ScaleOffset, str] | None = None  # scale and offset, and what declares them
        if self._facts.scale_offset is not None:
            pairs = tuple((scale, offset) for scale, offset in self._facts.scale_offset)
            self._declared = pairs, "the images that the model learnt from"

    def notes(self, info: RasterInfo, bands: Sequence[int]) -> Iterator[str]:
        """Tell what is unlike the images of training in the header of a raster.

        Args:
            info: the header.
            bands: that the model takes.
        """
        if info.alpha and set(info.alpha) & set(bands):
            yield (
                f"band {info.alpha[0]} is marked as alpha, and is taken for the measurement that the model "
                "expects there"
            )
        if info.dtype != self._facts.dtype:
            yield (
                f"holds {info.dtype}, the model learnt from {self._facts.dtype}; the map is only right if "
                "the values mean the same"
            )
        here = scale_offset(info, bands)
        there, whose = self._declared or (here, info.path)
        self._declared = (there, whose)
        if here != there:
            yield (
                f"declares another scale and offset ({format_scales(here)}) than {whose} "
                f"({format_scales(there)}); values are taken as they are stored, so that the same one means "
                f"something else; {SCALE_REMEDY}"
            )
        if ignored := GeoBox.from_raster(info.path).dropped:
            yield f"its {ignored} are not carried over to the map"

    def warning(self, source: RasterInput) -> str:
        """Tell that values are unlike those that the model has seen; "" where they are not.

        Args:
            source: the raster.

        Raises:
            DataError: it can't be read.
        """
        seen = self._facts.seen
        return _strange_values(source, seen, self._facts.band_names) if seen else ""


def _strange_values(source: RasterInput, seen: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    info = source.info
    parts = []
    with RasterReader(info.path, source.bands, source.nodata, source.zero_is_nodata) as reader:
        for row in _starts(info.height):
            for col in _starts(info.width):
                height, width = min(_SIDE, info.height - row), min(_SIDE, info.width - col)
                image, valid = reader.read(Window(row, col, height, width))
                parts.append(image[:, valid])
    pixels = np.concatenate(parts, axis=1)  # (bands, pixels)
    if not pixels.shape[1]:
        return ""
    ends = np.quantile(pixels.astype(np.float64), (0.05, 0.95), axis=1).T.tolist()
    flat = all(b - a < _FLAT * (high - low) for (a, b), (low, high) in zip(ends, seen, strict=True))
    found = []
    for values, here, (low, high), name in zip(pixels, ends, seen, names, strict=True):
        share = np.mean((values < low) | (values > high))
        if share > _MOST or flat:
            what = "is nearly constant" if flat else f"lies outside in {share:.0%} of the pixels"
            there = f"{low:.6g} to {high:.6g} in training"
            found.append(f"{name} {what} ({there}, {here[0]:.6g} to {here[1]:.6g} here)")
    if not found:
        return ""
    return (
        f"values are unlike those that the model has learnt from: band {', '.join(found)}; the map is not to "
        "be trusted; bring the raster to the values of the training images (scale, offset, type, level of "
        "processing)"
    )


def _starts(length: int) -> list[int]:
    """Where windows begin along an axis: all over it, side by side where it is short."""
    count = min(-(-length // _SIDE), _PLACES)
    if count == 1:
        return [0]
    return np.linspace(0, length - _SIDE, count).round().astype(int).tolist()
