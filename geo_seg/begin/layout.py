"""Which files of a folder are images and which are their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from geo_seg.begin.band_files import BandFiles, band_globs, find_band_files
from geo_seg.begin.globs import glob_regex, images_glob, pair_globs
from geo_seg.begin.labels.mask_values import MaskLook, few_values, look_at_masks
from geo_seg.begin.labels.polygon_values import PolygonLook, extent_of, look_at_polygons
from geo_seg.begin.listing import RASTER_SUFFIXES, VECTOR_SUFFIXES, Listing, is_vector_name
from geo_seg.begin.pairs import (
    Candidate,
    Pair,
    find_candidates,
    group_of,
    is_chosen,
    sniffed_candidates,
    split_by_name,
)
from geo_seg.begin.places import shows_ground
from geo_seg.begin.yaml_text import counted
from geo_seg.errors import DataError
from geo_seg.raster.georeference import corner_coordinates, same_grid
from geo_seg.raster.reader import read_info

_SAMPLE = 400  # pairs that globs are made of; all others are compared with them
_MAX_SNIFFED = 40  # groups of files
_MAX_LOCATED = 1000  # images that one file of labels is compared with


@dataclass
class Layout:
    """Images and labels of a data set.

    Attributes:
        candidate: the labels with their images.
        masks: what rasters of labels hold; None for polygons.
        polygons: what vector files of labels hold; None for rasters.
        images_globs: globs of the images, one per band file; None if a manifest has to list the files.
        masks_glob: likewise of the labels.
        bands: band files, or None.
        lone_images: images without labels that the globs match.
        takes_masks: whether the glob of the images matches labels, too.
        lone_masks: labels without an image.
        rest: rasters that are in no pair and no glob.
        alternatives: other labels that would do, each with what chooses them.
    """

    candidate: Candidate
    masks: MaskLook | None
    polygons: PolygonLook | None
    images_globs: list[str] | None = None
    masks_glob: str | None = None
    bands: BandFiles | None = None
    lone_images: list[str] = field(default_factory=list)
    takes_masks: bool = False
    lone_masks: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    alternatives: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> list[Pair]:
        """The scenes."""
        return self.candidate.pairs


def find_layout(listing: Listing, images: str | None, masks: str | None, attribute: str | None) -> Layout:
    """Choose images and labels.

    Args:
        listing: the folder.
        images: file, folder or glob that the images are in; None chooses.
        masks: likewise of the labels.
        attribute: of polygons; None chooses.

    Raises:
        DataError: there are no images, no labels, or labels that hold no classes.
    """
    if not listing.rasters:
        raise DataError(
            f"{listing.root}: no images; looked for {', '.join(RASTER_SUFFIXES)} with masks or polygons "
            f"({', '.join(VECTOR_SUFFIXES)}), and there are {listing.describe()}"
        )
    for key, choice in (("images", images), ("masks", masks)):
        named = (*listing.rasters, *(listing.vectors if key == "masks" else ()))
        if choice is not None and not any(is_chosen(name, choice) for name in named):
            raise DataError(f"--{key} {choice}: no such file, folder or glob below {listing.root}")
    image_names, mask_names = split_by_name(listing, images, masks)
    vectors = [name for name in listing.vectors if masks is None or is_chosen(name, masks)]
    bands = find_band_files(listing, image_names)
    by_name = bands.images if bands else {name: (name,) for name in image_names}
    candidates = find_candidates(by_name, mask_names, vectors)
    if not candidates and masks is None and not bands:
        sniffed = _sniff(listing, image_names)
        candidates = sniffed_candidates(by_name, sniffed)
        image_names = [name for name in image_names if not sniffed.get(group_of(name))]
    if not candidates:
        raise _no_labels(listing, image_names, mask_names)
    layout = _choose(listing, candidates, attribute)
    layout.bands = bands
    _set_globs(layout, listing, image_names, mask_names)
    return layout


def keep_images(layout: Layout, kept: Sequence[str], listing: Listing) -> Layout:
    """Return a layout of some of its images.

    Args:
        layout: the layout.
        kept: (first) files of the images.
        listing: the folder.
    """
    pairs = [pair for pair in layout.pairs if pair.images[0] in {*kept}]
    smaller = replace(
        layout, candidate=replace(layout.candidate, pairs=pairs), images_globs=None, masks_glob=None
    )
    _set_globs(smaller, listing, [name for pair in pairs for name in pair.images], layout.candidate.masks)
    if {*smaller.lone_images} & {pair.images[0] for pair in layout.pairs}:  # a glob would take them back
        smaller.images_globs, smaller.masks_glob, smaller.lone_images = None, None, []
    return smaller


def _sniff(listing: Listing, names: Sequence[str]) -> Mapping[str, bool]:
    """Return per folder and suffix whether its first raster looks like a mask."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(group_of(name), name)
    return {group: few_values(listing, name) for group, name in [*first.items()][:_MAX_SNIFFED]}


def _no_labels(listing: Listing, images: Sequence[str], masks: Sequence[str]) -> DataError:
    looked = (
        "looked for rasters of the same names in folders such as masks, labels or gt or with ends such as "
        f"_mask or _label, and for polygons ({', '.join(VECTOR_SUFFIXES)})"
    )
    if not images and masks:
        return DataError(
            f"{listing.root}: {counted(len(masks), 'mask')} ({masks[0]} first) and no images; name them "
            "with --images"
        )
    if masks:
        return DataError(
            f"{listing.root}: {counted(len(images), 'image')} ({images[0]} first) and "
            f"{counted(len(masks), 'mask')} ({masks[0]} first), and no two of them have one name; {looked}"
        )
    return DataError(
        f"{listing.root}: {counted(len(images), 'image')} ({images[0]} first) and no labels; {looked}; name "
        "them with --masks"
    )


def _choose(listing: Listing, candidates: Sequence[Candidate], attribute: str | None) -> Layout:
    """Return the best labels: those of most images, polygons with names before one nameless raster."""
    most = len(candidates[0].pairs)
    layouts, problems = [], []
    for candidate in candidates:
        if 2 * len(candidate.pairs) < most:
            continue
        layout = _look(listing, candidate, attribute)
        problem = (layout.masks or layout.polygons).problem  # type: ignore[union-attr]
        if problem:
            problems.append(problem)
        else:
            layouts.append(layout)
    if not layouts:
        raise DataError(f"{listing.root}: {problems[0]}; name other labels with --masks")
    layouts.sort(key=_rank)
    layout = layouts[0]
    layout.alternatives = [
        f"{choice} would do for {counted(len(other.pairs), 'image')}: --masks '{choice}'"
        for other in layouts[1:]
        for choice in [other.candidate.choice]
    ]
    layout.alternatives += [f"not taken: {problem}" for problem in problems]
    return layout


def _look(listing: Listing, candidate: Candidate, attribute: str | None) -> Layout:
    """Return what the labels of a candidate hold; one file for all images goes with those on its ground."""
    if candidate.one_file and len(candidate.pairs) <= _MAX_LOCATED:
        pairs = _pairs_on_ground(listing, candidate)
        if not pairs:
            problem = f"{candidate.example} lies on the ground of no image"
            return Layout(candidate, None, PolygonLook(problem=problem))
        candidate = replace(candidate, pairs=pairs)
    names = list(dict.fromkeys(pair.mask for pair in candidate.pairs))
    if is_vector_name(candidate.example):
        return Layout(candidate, None, look_at_polygons(listing, names, attribute))
    return Layout(candidate, look_at_masks(listing, names), None)


def _pairs_on_ground(listing: Listing, candidate: Candidate) -> list[Pair]:
    mask = candidate.example
    extent: tuple[tuple[float, ...], str | None] | None
    headers = {pair: read_info(listing.path(pair.images[0])) for pair in candidate.pairs}
    if not is_vector_name(mask):
        header = read_info(listing.path(mask))
        if header.crs is None:
            return [pair for pair, image in headers.items() if same_grid(image, header)]
        xs, ys = corner_coordinates(header, 0, header.height)
        extent = (xs.min(), ys.min(), xs.max(), ys.max()), header.crs
    else:
        extent = extent_of(listing, mask)
    return [pair for pair, image in headers.items() if extent is None or shows_ground(image, *extent)]


def _rank(layout: Layout) -> tuple[bool, bool, int, bool, int, str]:
    """Return what orders layouts, the best one first."""
    candidate, masks = layout.candidate, layout.masks
    named = layout.polygons is not None and layout.polygons.attribute is not None
    return (
        candidate.one_file and not named,
        candidate.one_file and masks is not None,
        -len(candidate.pairs),
        masks is not None and masks.kind == "colors",
        -len(masks.counts) if masks else 0,
        candidate.family,
    )


def _set_globs(layout: Layout, listing: Listing, images: Sequence[str], masks: Sequence[str]) -> None:
    """Find globs of the pairs, and what is left beside them."""
    pairs = layout.pairs
    firsts = [pair.images[0] for pair in pairs]
    used = {name for pair in pairs for name in (*pair.images, pair.mask)}
    if layout.candidate.one_file:
        glob, layout.masks_glob = images_glob(firsts), pairs[0].mask
        if glob and _matched(listing, glob) - {*firsts}:  # a mask or another image would be taken for one
            glob = None
    else:
        globs = _globs_of_pairs(pairs)
        glob, layout.masks_glob = globs if globs else (None, None)
    layout.images_globs = None
    if glob is not None:
        layout.images_globs = [glob]
        if layout.bands and len(pairs[0].images) > 1:
            layout.images_globs = band_globs(glob, layout.bands.bands[0], layout.bands.bands)
    if layout.images_globs is None:
        layout.masks_glob = None
    elif not layout.candidate.one_file:
        more = _matched(listing, layout.images_globs[0]) - {*firsts}
        layout.lone_images = sorted(more - {*layout.candidate.masks})
        layout.takes_masks = len(more) > len(layout.lone_images)
    layout.lone_masks = sorted({*layout.candidate.masks} - used)
    layout.rest = sorted({*images} - used - {*layout.lone_images})


def _matched(listing: Listing, glob: str) -> set[str]:
    regex = glob_regex(glob)
    return {name for name in listing.rasters if regex.fullmatch(name)}


def _globs_of_pairs(pairs: Sequence[Pair]) -> tuple[str, str] | None:
    names = [(pair.images[0], pair.mask) for pair in pairs]
    globs = pair_globs(names[:: max(len(names) // _SAMPLE, 1)])
    if globs and all(_same_text(globs, pair) for pair in names):
        return globs
    return pair_globs(names)


def _same_text(globs: tuple[str, str], pair: tuple[str, str]) -> bool:
    image, mask = (glob_regex(glob).fullmatch(name) for glob, name in zip(globs, pair, strict=True))
    return image is not None and mask is not None and image.groups() == mask.groups()
