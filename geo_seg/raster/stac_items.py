"""STAC items: which bands their assets hold, and which of them are wanted."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyogrio.raw

from geo_seg.errors import DataError, did_you_mean, first_line
from geo_seg.raster.band_names import match_bands
from geo_seg.raster.paths import check_below_root, gdal_path, is_remote
from geo_seg.raster.reader import Band, RasterInfo

_Look = Callable[[str], RasterInfo]
_ALPHA = "alpha"  # what items call a band that says which pixels are valid


@dataclass(frozen=True)
class _Asset:
    """A file of a STAC item.

    Attributes:
        key: its key in the item.
        path: of the file.
        names: per band that the item lists for it what this is called; empty where it lists none.
        scales: scale and offset that the item declares, of its bands in order; maybe of fewer.
    """

    key: str
    path: str
    names: tuple[tuple[str, ...], ...]
    scales: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Band:
    """A band of an asset.

    Attributes:
        asset: the file that holds it.
        place: among the bands of the asset, from 0.
        names: what it is called; the first is the name that it gets.
        alone: whether it is taken for the only band of its asset.
    """

    asset: _Asset
    place: int
    names: tuple[str, ...]
    alone: bool


def item_bands(
    item: str, bands: Sequence[Band] | None, read_info: _Look, root: Path | None = None
) -> list[RasterInfo]:
    """Find bands among the assets of a STAC item.

    Args:
        item: its path or address.
        bands: numbers, counted over all bands of all assets, or names: asset keys where the asset has one
            band, names and common names of bands, descriptions in files of which the item lists none. None
            takes all but alpha bands.
        read_info: reads a header. Assets that hold none of the bands aren't opened, but for those
            whose bands the item doesn't list, where these could be meant.
        root: the folder that assets must lie below; None lets them lie anywhere.

    Returns:
        Per band the header of its asset, with this band alone and its name.

    Raises:
        DataError: it is no STAC item, there is no such band, or an asset can't be opened, lies elsewhere or
            has other bands than the item lists.
    """
    assets = _assets(item)
    if not assets:
        raise DataError(f"{item}: the STAC item has no asset with the role data")

    @cache
    def opened(asset: _Asset) -> RasterInfo:
        if root is not None:
            check_below_root(asset.path, root, f"{item}: the asset {asset.path}")
        return read_info(asset.path)

    listed = [band for asset in assets for band in _listed(asset)]
    names = [band for band in bands or () if isinstance(band, str)]
    matches = _named(item, names, listed)
    if bands is None or any(band not in matches for band in bands):
        listed = [
            band
            for asset in assets
            for band in (_listed(asset) if asset.names else _bands_in_file(asset, opened(asset)))
        ]
        matches = _named(item, names, listed)
    if bands is None:
        return [_header(band, opened(band.asset)) for band in listed]
    chosen = []
    for band in bands:
        if isinstance(band, str) and band in matches:
            chosen.append(replace(matches[band], names=(band,)))
        elif isinstance(band, int) and 1 <= band <= len(listed):
            chosen.append(listed[band - 1])
        else:
            known_names = [name.lower() for entry in listed for name in entry.names]
            raise DataError(
                f"{item}: no band {band!r} among its assets; {did_you_mean(str(band), set(known_names))}"
            )
    return [_header(band, opened(band.asset)) for band in chosen]


def _listed(asset: _Asset) -> list[_Band]:
    """Return the bands of an asset from the item alone: one band where it lists none."""
    if len(asset.names) <= 1:
        return [_Band(asset, 0, (asset.key, *(asset.names or ((),))[0]), alone=True)]
    return [
        _Band(asset, place, names, alone=False)
        for place, names in enumerate(asset.names)
        if _ALPHA not in map(str.lower, names)
    ]


def _bands_in_file(asset: _Asset, header: RasterInfo) -> list[_Band]:
    """Return the bands of an asset from its file, where the item lists none."""
    if len(header.bands) == 1:
        return _listed(asset)
    return [_Band(asset, place, (name,) if name else (), False) for place, name in enumerate(header.names)]


def _named(item: str, wanted: Sequence[str], bands: Sequence[_Band]) -> dict[str, _Band]:
    """Return the bands by name: those alone in their assets come first, and names before their meaning.

    Raises:
        DataError: several assets hold a band of this name among others.
    """
    alone, shared = ([band for band in bands if band.alone == is_alone] for is_alone in (True, False))
    by_name = {name.lower(): band for band in reversed(alone) for name in band.names}
    matches = {name: by_name[name.lower()] for name in wanted if name.lower() in by_name}
    for name in (name for name in wanted if name not in matches):
        same = [band for band in shared if name.lower() in map(str.lower, band.names)]
        if len(same) > 1:
            locations = " and ".join(f"band {band.place + 1} of the asset {band.asset.key}" for band in same)
            raise DataError(
                f"{item}: {name} is {locations}; give the number of the one that is meant, or name the "
                "file itself"
            )
        if same:
            matches[name] = same[0]
    for group in (alone, shared):  # keys, else names, else common names
        for names in zip_longest(*(band.names for band in group), fillvalue=""):
            for name, index in zip(wanted, match_bands(wanted, names), strict=True):
                if index is not None:
                    matches.setdefault(name, group[index])
    return matches


def _header(band: _Band, header: RasterInfo) -> RasterInfo:
    """Return a header with one band only, and the item's scale where the raster declares none.

    Raises:
        DataError: it has other bands than the item lists.
    """
    asset, every = band.asset, sorted({*header.bands, *header.alpha})
    count = len(asset.names) or (1 if band.alone else len(header.bands))
    numbers = every if count == len(every) else list(header.bands)
    if count != len(numbers):
        listing = f"lists {count}" if asset.names else "doesn't list them"
        names = ", ".join(filter(None, header.names)) or "no names"
        raise DataError(
            f"{header.path}: {len(header.bands)} bands ({names}), but the STAC item {listing} for its asset "
            f"{asset.key}; mend the item, name one of the bands, or name the file itself"
        )
    number = numbers[band.place]
    index = header.bands.index(number) if number in header.bands else None
    scale, offset = (1.0, 0.0) if index is None else header.scale_offset([number])[0]
    if set(header.scale_offset(header.bands)) == {(1.0, 0.0)} and band.place < len(asset.scales):
        scale, offset = asset.scales[band.place]
    measured = [
        other
        for other, names in zip(numbers, asset.names, strict=False)
        if other in header.alpha and _ALPHA not in map(str.lower, names)
    ]
    return replace(
        header,
        bands=(number,),
        names=(next(iter(band.names), ""),),
        nodata=(None if index is None else header.nodata[index],),
        masks=(0 if index is None else header.masks[index],),
        alpha=tuple(other for other in header.alpha if other not in {number, *measured}),
        scales=(scale,),
        offsets=(offset,),
        dtype=header.dtype if index is None else header.types[index],
        types=header.types[:1] if index is None else header.types[index : index + 1],
    )


def _assets(item: str) -> list[_Asset]:
    try:
        assets = _remote_assets(item) if is_remote(item) else json.loads(Path(item).read_bytes())["assets"]
        return [_asset(item, key, asset) for key, asset in assets.items() if _holds_data(asset)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{item}: not a STAC item ({type(error).__name__}: {error})") from error


def _remote_assets(item: str) -> dict[str, dict[str, Any]]:
    """Return the assets of an item, fetched by GDAL like rasters: same retries, same credentials."""
    try:
        fields, _, _, columns = pyogrio.raw.read(
            gdal_path(item), columns=["assets"], read_geometry=False, FOREIGN_MEMBERS="ALL"
        )
    except pyogrio.errors.DataSourceError as error:
        raise DataError(f"{item}: cannot be read as a STAC item ({first_line(error)})") from error
    if list(fields["fields"]) != ["assets"] or len(columns[0]) != 1:
        raise DataError(f"{item}: not a STAC item; expected one GeoJSON feature with assets")
    assets: dict[str, dict[str, Any]] = json.loads(columns[0][0])
    return assets


def _holds_data(asset: Mapping[str, Any]) -> bool:
    roles = asset.get("roles")
    return "data" in roles if roles else str(asset.get("type", "")).startswith("image/tiff")


def _asset(item: str, key: str, asset: Mapping[str, Any]) -> _Asset:
    entries = asset.get("eo:bands") or asset.get("bands") or []
    own = [[band.get("name"), band.get("common_name") or band.get("eo:common_name")] for band in entries]
    common = Counter(second for _, second in own)
    names = [
        # of several bands that share a common name, it is the name that tells them apart
        [second, first] if len(own) > 1 and common[second] == 1 else [first, second]
        for first, second in own
    ]
    old = [  # as the raster extension once said it
        {f"raster:{key}": value for key, value in band.items()} for band in asset.get("raster:bands", [])
    ]
    count = max(1, len(entries), len(old))
    sources = [[asset, *entries[i : i + 1], *old[i : i + 1]] for i in range(count)]
    return _Asset(
        key,
        _asset_path(item, str(asset["href"])),
        tuple(tuple(dict.fromkeys(str(name) for name in band if name)) for band in names),
        tuple(
            (_declared(band, "raster:scale", 1.0), _declared(band, "raster:offset", 0.0)) for band in sources
        ),
    )


def _declared(places: Sequence[Mapping[str, Any]], key: str, usual: float) -> float:
    return next((float(place[key]) for place in places if key in place), usual)


def _asset_path(item: str, href: str) -> str:
    """Return the path of an asset; relative ones are relative to the item."""
    if is_remote(href):
        return gdal_path(href)
    if not is_remote(item):
        return str(Path(item).parent / href)
    folder = gdal_path(item).rpartition("/")[0]
    for part in href.split("/"):  # os.path would make one slash of the two in http://
        if part == "..":
            folder = folder.rpartition("/")[0]
        elif part != ".":
            folder += f"/{part}"
    return folder
