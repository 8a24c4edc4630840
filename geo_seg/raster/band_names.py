"""Band names: common names, codes of sensors, and matching the wanted bands of a raster."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

from geo_seg.errors import DataError, did_you_mean

# common names of the STAC extension for electro-optical data, and what else they are called
_WORDS = {
    "coastal": "coastal coastalaerosol coastalblue aerosol aerosols ultrablue deepblue",
    "blue": "blue b",
    "green05": "green05 green1 greeni",
    "green": "green g green2 greenii",
    "yellow": "yellow",
    "red": "red r",
    "rededge": "rededge re",
    "rededge071": "rededge071 rededge1 re1 vre1",
    "rededge075": "rededge075 rededge2 re2 vre2",
    "rededge078": "rededge078 rededge3 re3 vre3",
    "nir": "nir n nearinfrared nearir infrared ir nir1 widenir broadnir",
    "nir08": "nir08 narrownir nirnarrow nearinfrarednarrow",
    "nir09": "nir09 nir2 watervapour watervapor",
    "cirrus": "cirrus",
    "pan": "pan panchromatic",
    "swir": "swir shortwaveinfrared",
    "swir16": "swir16 swir1 shortwaveinfrared1",
    "swir22": "swir22 swir2 shortwaveinfrared2",
    "lwir": "lwir tir thermal thermalinfrared",
    "lwir11": "lwir11 tirs1 tir1",
    "lwir12": "lwir12 tirs2 tir2",
}
_MEANINGS = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_AKIN = {  # a general name may stand for one of these
    "nir": {"nir08"},
    "rededge": {"rededge071", "rededge075", "rededge078"},
    "swir": {"swir16", "swir22"},
    "lwir": {"lwir11", "lwir12"},
}


class _Sensor(NamedTuple):
    """Codes of a sensor's bands.

    Attributes:
        prefixes: that may stand before b and the number.
        padded: whether numbers are written with a leading zero; None for both ways.
        bands: meaning by number.
    """

    prefixes: frozenset[str]
    padded: bool | None
    bands: dict[str, str]


def _numbered(meanings: str, first: int = 1) -> dict[str, str]:
    """Return the meanings of consecutively numbered bands."""
    return {str(number): meaning for number, meaning in enumerate(meanings.split(), first)}


_SENTINEL_2 = _Sensor(
    frozenset({""}),
    None,
    _numbered("coastal blue green red rededge071 rededge075 rededge078 nir")
    | {"8a": "nir08"}
    | _numbered("nir09 cirrus swir16 swir22", 9),
)
_LANDSAT_8 = _Sensor(
    frozenset({"", "sr", "oli"}),
    False,
    _numbered("coastal blue green red nir08 swir16 swir22 pan cirrus lwir11 lwir12"),
)
_LANDSAT_4 = _Sensor(
    frozenset({"", "sr", "tm", "etm"}), False, _numbered("blue green red nir08 swir16 lwir swir22 pan")
)
_HLS_LANDSAT = _Sensor(frozenset({""}), True, {k: v for k, v in _LANDSAT_8.bands.items() if k != "8"})
_SENSORS = (_SENTINEL_2, _LANDSAT_8, _LANDSAT_4, _HLS_LANDSAT)
_CODE = re.compile(r"(sr|oli|tm|etm|)b(0?)(\d{1,2}a?)")

_Reading = tuple[str, ...]  # per name what it means, "" for not known
_Code = tuple[str, str, str]  # prefix, leading zero and number


class Assignment(NamedTuple):
    """Which bands of a raster are the wanted ones.

    Attributes:
        bands: a number per wanted band.
        renamed: bands that were found by another name: the wanted one, and that.
        numbered: bands with a name that were taken by number: the name, and the number.
    """

    bands: tuple[int, ...]
    renamed: tuple[tuple[str, str], ...]
    numbered: tuple[tuple[str, int], ...]


def match_bands(wanted: Sequence[str], names: Sequence[str]) -> tuple[int | None, ...]:
    """Find wanted bands among names: by the same name, by the same meaning, or by a kindred one.

    A code such as B4 means something else for each sensor. It is read as of a sensor that has all codes of
    its list; where several have, those count under which every wanted band is found.

    Args:
        wanted: names; "" is found nowhere.
        names: "" for a band without a name.

    Returns:
        Per wanted name its index among names; None where it is missing or ambiguous.
    """
    readings = {
        _match_indices(wanted, names, first, second)
        for first, second in product(_readings(wanted), _readings(names))
    }
    complete = {indices for indices in readings if None not in indices}
    agreed = [set(indices) for indices in zip(*(complete or readings), strict=True)]
    return tuple(indices.pop() if len(indices) == 1 else None for indices in agreed)


def assign_bands(
    path: str, wanted: Sequence[str], numbers: Sequence[int | None], there: Mapping[int, str]
) -> Assignment:
    """Choose the wanted bands of a raster: by name where names are known, else by number.

    Args:
        path: of the raster.
        wanted: name of each band; "" where it has none.
        numbers: that each has where names don't decide; None where it can only be found by name.
        there: names of the raster's bands by their numbers; "" for a band without a name.

    Raises:
        DataError: a band isn't there, or names contradict the order of the numbers.
    """
    available, names = list(there), list(there.values())
    indices = match_bands(wanted, names)
    named = {available[index]: wanted[i] for i, index in enumerate(indices) if index is not None}
    bands: list[int] = []
    renamed, numbered = [], []
    for name, index, number in zip(wanted, indices, numbers, strict=True):
        if index is not None:
            bands.append(available[index])
            if _normalized(names[index]) != _normalized(name):
                renamed.append((name, names[index]))
            continue
        if number is None or number not in there:
            raise DataError(f"{path}: {_missing_band(name, number, there)}")
        if number in named or _contradict(wanted, name, names, there[number]):
            raise DataError(
                f"{path}: names contradict the order of its bands: {name or 'a band without a name'} would "
                f"be band {number}, which is {there[number]} (wanted: {_listed(wanted)}; there is: "
                f"{_listed(names)}); name its bands as they are, or give them in the order that is wanted"
            )
        bands.append(number)
        if name:
            numbered.append((name, number))
    return Assignment(tuple(bands), tuple(renamed), tuple(numbered))


def _missing_band(name: str, number: int | None, there: Mapping[int, str]) -> str:
    names = [other for other in there.values() if other]
    hint = f"; {did_you_mean(name, names)}" if names else " without names"
    return f"no band {name or number}; it has {len(there)} bands{hint}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "(no name)" for name in names) if any(names) else "none"


def _contradict(wanted: Sequence[str], name: str, names: Sequence[str], other: str) -> bool:
    """Return whether two names mean different bands for every sensor."""
    wanted_index, name_index = wanted.index(name), names.index(other)
    return all(
        first[wanted_index]
        and second[name_index]
        and not _same_meaning(first[wanted_index], second[name_index])
        for first, second in product(_readings(wanted), _readings(names))
    )


def _match_indices(
    wanted: Sequence[str], names: Sequence[str], meant: _Reading, read: _Reading
) -> tuple[int | None, ...]:
    """Places of wanted bands if names mean this: the same text first, then the same and kindred meanings."""
    texts = list(dict.fromkeys(map(_normalized, wanted)))  # a band may be wanted twice
    meanings = {text: meaning for text, meaning in zip(map(_normalized, wanted), meant, strict=True)}
    plain = [_normalized(name) for name in names]
    matches: dict[str, int] = {}
    for is_match in (
        lambda text, i: text == plain[i],
        lambda text, i: meanings[text] == read[i] != "",
        lambda text, i: bool(meanings[text] and read[i]) and _same_meaning(meanings[text], read[i]),
    ):
        open_texts = [text for text in texts if text and text not in matches]
        open_indices = [i for i in range(len(names)) if plain[i] and i not in matches.values()]
        pairs = [(text, i) for text in open_texts for i in open_indices if is_match(text, i)]
        text_counts, index_counts = Counter(text for text, _ in pairs), Counter(i for _, i in pairs)
        matches |= {text: i for text, i in pairs if text_counts[text] == index_counts[i] == 1}
    return tuple(matches.get(_normalized(name)) for name in wanted)


def _same_meaning(first: str, second: str) -> bool:
    return first == second or second in _AKIN.get(first, ()) or first in _AKIN.get(second, ())


def _readings(names: Sequence[str]) -> list[_Reading]:
    """Return the possible meanings of names: one reading per sensor that has all of their codes."""
    words = [_word(name) for name in names]
    codes = [None if word else _code(name) for word, name in zip(words, names, strict=True)]
    listed = [code for code in codes if code]
    if not listed or codes == [("", "", str(n)) for n in range(1, len(names) + 1)]:
        return [tuple(words)]  # b1, b2, b3 only counts them
    # so GDAL calls those of Sentinel-2: B4, central wavelength 665 nm
    named = any("central wavelength" in name for name in names)
    sensors = [
        sensor
        for sensor in ((_SENTINEL_2,) if named else _SENSORS)
        if all(_has(sensor, code) for code in listed)
    ]
    return [
        tuple(sensor.bands[code[2]] if code else word for word, code in zip(words, codes, strict=True))
        for sensor in sensors
    ] or [tuple(words)]


def _has(sensor: _Sensor, code: _Code) -> bool:
    prefix, zero, number = code
    padded = sensor.padded is None or len(number) > 1 or sensor.padded == bool(zero)
    return prefix in sensor.prefixes and padded and number in sensor.bands


def _word(name: str) -> str:
    """Return the meaning of a name without a code, or ""."""
    if meaning := _MEANINGS.get(_squeezed(re.sub(r"[(\[].*", "", name))):
        return meaning  # red (660 Nanometers), Near-Infrared
    meanings = {_MEANINGS.get(_squeezed(part), "") for part in _split(name)} - {""}
    return meanings.pop() if len(meanings) == 1 else ""


def _code(name: str) -> _Code | None:
    """Return the code in a name, or None."""
    codes = [code for part in _split(name) if (code := _CODE.fullmatch(_squeezed(part)))]
    return (codes[0][1], codes[0][2], codes[0][3]) if len(codes) == 1 else None


def _split(name: str) -> list[str]:
    return re.split(r"[()\[\],:;|]|\s-\s", name)


def _squeezed(text: str) -> str:
    """Return letters and digits in lower case."""
    return re.sub(r"[^0-9a-z]", "", text.lower())


def _normalized(name: str) -> str:
    return name.strip().lower()
