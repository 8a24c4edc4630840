"""What images hold: bands, type, sizes, resolution, and values that stand for nodata."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geo_seg.begin.listing import Listing
from geo_seg.begin.yaml_text import counted
from geo_seg.errors import DataError
from geo_seg.raster.georeference import ground_pixel_size
from geo_seg.raster.paths import open_source
from geo_seg.raster.reader import RasterInfo, read_info

_MAX_HEADERS = 1000
_MAX_ODD = 1 / 3  # of the images, that may be unlike the others
_MAX_LOOKED = 8  # images whose pixels are looked at
_SIDE = 512  # to which they are thinned
_MIN_SHARE = 0.01  # of all pixels that are 0 in all bands
_USUAL_NODATA = (-9999, -32768, -32767, 65535)
_RGBA = 4


@dataclass
class ImageLook:
    """What images hold.

    Attributes:
        headers: of the images, by name; of all unless there are very many.
        complete: whether they are of all images.
        first: header of the first image.
        zero_share: highest share of pixels that are 0 in all bands and reach the border, of an image.
        nodata: a value that is probably undeclared nodata, or None.
        alpha_is_data: whether the band marked as alpha holds more than two values.
        odd: images that can't be read, or of other bands or another type than most, with what they are.
    """

    headers: dict[str, RasterInfo]
    complete: bool
    first: RasterInfo
    zero_share: float = 0.0
    nodata: int | None = None
    alpha_is_data: bool = False
    odd: dict[str, str] = field(default_factory=dict)

    @property
    def resolution(self) -> str:
        """Size of a pixel for a comment."""
        size = ground_pixel_size(self.first)
        return f"{min(size):.3g} m per pixel" if size else "no georeference"

    @property
    def sides(self) -> list[int]:
        """The shorter side of each image, sorted."""
        return sorted(min(header.height, header.width) for header in self.headers.values())


def look_at_images(listing: Listing, names: Sequence[str]) -> ImageLook:
    """Read headers, and the pixels of a few images.

    Args:
        listing: the folder.
        names: the first file of each image.

    Raises:
        DataError: no image can be read, or there are several kinds of images.
    """
    chosen = names if len(names) <= _MAX_HEADERS else names[:: -(-len(names) // _MAX_HEADERS)]
    headers: dict[str, RasterInfo] = {}
    odd: dict[str, str] = {}
    problem = DataError(f"{listing.root}: no images")
    for name in chosen:
        try:
            headers[name] = read_info(listing.path(name))
        except DataError as error:
            problem, odd[name] = error, "no pixels that can be read"
    if not headers:
        raise problem
    kinds = Counter((len(header.bands), header.dtype) for header in headers.values())
    usual = kinds.most_common(1)[0][0]
    odd |= {
        name: f"{counted(len(header.bands), 'band')} of {header.dtype}"
        for name, header in headers.items()
        if (len(header.bands), header.dtype) != usual
    }
    if len(odd) > _MAX_ODD * len(chosen):
        listed = ", ".join(f"{n} of {bands} bands of {dtype}" for (bands, dtype), n in kinds.most_common(3))
        raise DataError(
            f"{listing.root}: images of several kinds ({listed}); give the folder of one data set, or choose "
            "with --images"
        )
    first = next(header for name, header in headers.items() if name not in odd)
    look = ImageLook(headers, len(chosen) == len(names), first, odd=odd)
    step = max(len(headers) // _MAX_LOOKED, 1)
    for name, header in [*headers.items()][::step][:_MAX_LOOKED]:
        try:
            _look_at_pixels(look, header)
        except RasterioError:
            odd[name] = "pixels that cannot be read"
    return look


def _look_at_pixels(look: ImageLook, header: RasterInfo) -> None:
    thin = max(-(-max(header.height, header.width) // _SIDE), 1)
    shape = (max(header.height // thin, 1), max(header.width // thin, 1))
    with open_source(header.path) as source:
        pixels = source.read(header.bands, out_shape=(len(header.bands), *shape))
        if header.dtype == "uint8" and header.alpha and len(header.bands) + 1 == _RGBA:
            alpha = source.read(header.alpha[0], out_shape=shape)
            look.alpha_is_data |= len(np.unique(alpha)) > 2  # hidden or not
    if all(value is None for value in header.nodata) and not header.masked:
        look.zero_share = max(look.zero_share, _border_share(np.all(pixels == 0, axis=0)))
        for value in _USUAL_NODATA:
            if (
                look.nodata is None
                and np.count_nonzero(np.all(pixels == value, axis=0)) >= pixels[0].size / 1000
            ):
                look.nodata = value


def _border_share(dark: NDArray[Any]) -> float:
    """Return the share of dark pixels if some lie on the border, else 0."""
    border = dark[0].any() or dark[-1].any() or dark[:, 0].any() or dark[:, -1].any()
    share = float(dark.mean())
    return share if border and share >= _MIN_SHARE else 0.0
