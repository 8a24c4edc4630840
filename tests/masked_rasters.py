"""Rasters of every type whose validity is told in every way that GDAL knows, and what is valid in them."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")

KINDS = ("none", "nodata", "internal mask", ".msk", "alpha", "nodata and alpha", "NODATA_VALUES", "NaN")
"""Ways to say what is valid."""

CASES = [
    (dtype, kind) for dtype in (*INTEGERS, *FLOATS) for kind in KINDS if kind != "NaN" or dtype in FLOATS
]
"""Types and ways that go together."""

LOWEST = float(np.finfo(np.float32).min)

# per type what is declared, and what the pixels hold: not the same number in floats, but the same to GDAL
FILLS: dict[str, tuple[float, Any]] = {
    "uint8": (255, 255),
    "int8": (-128, -128),
    "uint16": (65535, 65535),
    "int16": (-32768, -32768),
    "uint32": (4294967295, 4294967295),
    "int32": (-2147483648, -2147483648),
    "uint64": (9999, 9999),
    "int64": (-9999, -9999),
    "float32": (-3.4e38, LOWEST),
    "float64": (-9999.1, np.nextafter(-9999.1, 0)),
}


def draw_valid(height: int, width: int) -> NDArray[np.bool_]:
    """Patches of valid pixels, and single ones."""
    draw = np.random.default_rng(5)
    patches = np.kron(draw.random((-(-height // 8), -(-width // 8))) < 0.7, np.ones((8, 8), bool))
    return patches[:height, :width] ^ (draw.random((height, width)) < 0.05)


def write_masked(
    path: Path, pixels: NDArray[Any], valid: NDArray[np.bool_], dtype: str, kind: str, **profile: Any
) -> NDArray[np.bool_]:
    """Writes (bands, H, W) pixels that hold measurements where valid is True; gives what is valid there.

    Invalid pixels hold a fill value in one band each, or, under masks, what looks like measurements.
    """
    declared, _ = FILLS[dtype]
    nodata = {"nodata": declared} if kind.startswith("nodata") else {}
    bands = _filled(pixels.astype(dtype), ~valid, dtype, kind)
    if kind == "none":
        valid = np.ones_like(valid)
    if "alpha" in kind:
        shown = valid if kind == "alpha" else valid | _half(valid)
        bands = np.concatenate([bands, np.where(shown, 100, 0)[None].astype(dtype)])
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 2, 2)}
    size = {"count": len(bands), "height": valid.shape[0], "width": valid.shape[1]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal mask"),
        rasterio.open(
            path, "w", driver="GTiff", dtype=dtype, **{**size, **place, **nodata, **profile}
        ) as target,
    ):
        if "alpha" in kind:
            target.colorinterp = [*[ColorInterp.gray] * (len(bands) - 1), ColorInterp.alpha]
        target.write(bands)
        if kind in {"internal mask", ".msk"}:
            target.write_mask(valid)
        if kind == "NODATA_VALUES":
            target.update_tags(NODATA_VALUES=" ".join(["99"] * len(bands)))
    return valid


def _half(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that hold the nodata value where an alpha band says the rest."""
    return ~valid & (np.arange(valid.shape[1]) % 2 == 0)


def _filled(bands: NDArray[Any], hidden: NDArray[np.bool_], dtype: str, kind: str) -> NDArray[Any]:
    """Puts what is no measurement into one band of each hidden pixel."""
    odd: Any = FILLS[dtype][1]
    if kind == "NaN":
        odd = np.resize(np.array([np.nan, np.inf, -np.inf, 1.5e30, -1e31], dtype), hidden.shape)
    elif kind == "NODATA_VALUES":  # it takes all bands
        return np.where(hidden, np.array(99, dtype), bands)
    elif not kind.startswith("nodata"):
        return bands
    places = hidden & _half(~hidden) if "alpha" in kind else hidden
    number = np.arange(hidden.size).reshape(hidden.shape) % len(bands)
    each = np.arange(len(bands))[:, None, None]
    return np.where(places & (number == each), np.array(odd, dtype), bands)
