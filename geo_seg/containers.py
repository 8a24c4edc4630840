"""Opening rasters; what cannot be opened as one of real numbers is said in one line."""

from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from geo_seg.errors import DataError

_LISTED = 8  # subdatasets that a message names


def open_source(path: str | Path) -> Any:
    """Opens a raster of real numbers.

    Raises:
        DataError: there is none: nothing can be opened, or only a container of others, or complex numbers.
    """
    try:
        source = rasterio.open(path)
    except RasterioError as error:
        reason = _absence(path) or str(error).split(": ")[-1]
        raise DataError(f"{path}: cannot be opened as a raster ({reason})") from error
    wrong = _unfit(source)
    if wrong:
        source.close()
        raise DataError(f"{path}: {wrong}")
    return source


def _unfit(source: Any) -> str:
    """What speaks against a raster, or ""."""
    if not source.count:
        names = source.subdatasets
        listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if names[_LISTED:] else "")
        return "holds no band of its own" + (f"; name what is meant of its {listed}" if names else "")
    complex_type = next((kind for kind in source.dtypes if kind.startswith("complex")), None)
    if complex_type:
        return (
            f"holds complex numbers ({complex_type}), of which a model would see the real part only; make "
            "bands of their amplitude, or of real and imaginary part"
        )
    return ""


def _absence(path: str | Path) -> str:
    """Why there is nothing to read in a file, or ""."""
    if str(path).startswith("/vsi") or "://" in str(path):
        return ""
    if not Path(path).exists():
        return "no such file"
    return "the file is empty" if Path(path).is_file() and not Path(path).stat().st_size else ""
