"""Pairs of images and labels: candidates by name, and by content where names say nothing."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

from geo_seg.begin.listing import Listing
from geo_seg.begin.words import family_of, is_mask_name, keys_of

_MAX_SINGLE = 20  # vector files, each of which may be for all images


@dataclass(frozen=True)
class Pair:
    """An image and its labels, as paths below the folder.

    Attributes:
        images: one file, or one per band.
        mask: a raster or vector file.
    """

    images: tuple[str, ...]
    mask: str


@dataclass
class Candidate:
    """Labels of one kind with their images.

    Attributes:
        family: what the labels of the kind share, for messages and --masks.
        masks: all labels of the kind.
        pairs: those with an image.
        one_file: whether one file is for all images.
        rivals: other images that would do, by family: number of pairs.
        guessed: why it is a guess which files are images and which masks; "" if their names say so.
    """

    family: str
    masks: list[str]
    pairs: list[Pair]
    one_file: bool = False
    rivals: dict[str, int] = field(default_factory=dict)
    guessed: str = ""

    @property
    def example(self) -> str:
        """One of the labels."""
        return self.pairs[0].mask

    @property
    def choice(self) -> str:
        """What --masks chooses these labels with: a file, or the deepest folder of all of them."""
        if len(self.masks) == 1:
            return self.masks[0]
        folders = {str(PurePosixPath(name).parent) for name in self.masks}
        if len(folders) == 1 and (folder := folders.pop()) != ".":
            return folder
        return f"*{self.family.rpartition('/')[2] or PurePosixPath(self.masks[0]).suffix}*"


def is_chosen(name: str, choice: str | None) -> bool:
    """Return whether a path is chosen: it is that file, lies in that folder, or matches that glob."""
    if choice is None:
        return False
    folder = choice.rstrip("/")
    return name == folder or name.startswith(f"{folder}/") or fnmatch(name, choice)


def split_by_name(listing: Listing, images: str | None, masks: str | None) -> tuple[list[str], list[str]]:
    """Return the rasters that may be images and those that are masks, by name or by choice.

    Args:
        listing: the folder.
        images: choice of the images, see is_chosen; None for all.
        masks: choice of the masks.
    """
    chosen = {name for name in listing.rasters if is_chosen(name, masks)}
    named = {name for name in listing.rasters if is_mask_name(name)}
    of_masks = chosen if masks is not None else named
    if images is not None:
        of_images = {name for name in listing.rasters if is_chosen(name, images)} - chosen
        return sorted(of_images), sorted(of_masks - of_images)
    return [name for name in listing.rasters if name not in named and name not in of_masks], sorted(of_masks)


def find_candidates(
    images: Mapping[str, tuple[str, ...]], masks: Sequence[str], vectors: Sequence[str]
) -> list[Candidate]:
    """Return the kinds of labels that have images, those with the most images first.

    Args:
        images: files of each image, by the name to compare with that of masks.
        masks: rasters that are masks by name.
        vectors: vector files.
    """
    families: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for name in masks:
        families[family_of(name), False].append(name)
    for name in vectors:
        families[family_of(name), True].append(name)
    keyed = {name: keys_of(name) for name in images}
    candidates = []
    for (family, are_vectors), names in sorted(families.items()):
        candidate = _candidate(family, names, images, keyed)
        if candidate:
            candidates.append(candidate)
        elif are_vectors and len(names) <= _MAX_SINGLE:  # each may be for all images
            candidates += filter(None, (_candidate(family, [name], images, keyed) for name in names))
    return sorted(candidates, key=lambda candidate: -len(candidate.pairs))


def sniffed_candidates(
    images: Mapping[str, tuple[str, ...]], looks_like_mask: Mapping[str, bool]
) -> list[Candidate]:
    """Return pairs of files that differ in folder or suffix alone, where one of both looks like a mask.

    Args:
        images: see find_candidates.
        looks_like_mask: per group of files (see group_of) whether one of them does.
    """
    masks = [name for name in images if looks_like_mask.get(group_of(name))]
    others = {name: files for name, files in images.items() if not looks_like_mask.get(group_of(name))}
    keyed = {name: keys_of(name) for name in others}
    families: dict[str, list[str]] = defaultdict(list)
    for name in masks:
        families[group_of(name)].append(name)
    candidates = []
    for family, names in families.items():
        candidate = _candidate(family, names, others, keyed)
        if candidate:
            candidate.guessed = "their values look like classes: one band, few whole numbers"
            candidates.append(candidate)
    return sorted(candidates, key=lambda candidate: -len(candidate.pairs))


def group_of(name: str) -> str:
    """Return folder and suffix of a file."""
    path = PurePosixPath(name)
    return f"{path.parent}/*{path.suffix}"


def _candidate(
    family: str,
    masks: Sequence[str],
    images: Mapping[str, tuple[str, ...]],
    keyed: Mapping[str, tuple[str, str, str]],
) -> Candidate | None:
    if not images:
        return None
    best: list[tuple[str, str]] = []
    mask_keys = [(keys_of(name), name) for name in masks]
    for level in range(3):
        if len(best) == min(len(images), len(masks)):
            break  # a looser key joins no more
        joined = _join(images, keyed, mask_keys, level)
        if len(joined) > len(best):
            best = joined
    if len(masks) == 1 and not best:
        return Candidate(
            family, [*masks], [Pair(files, masks[0]) for files in images.values()], one_file=True
        )
    if not best:
        return None
    by_family: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for image, mask in best:
        by_family[family_of(image)].append((image, mask))
    counts = Counter({name: len(rows) for name, rows in by_family.items()})
    if max(Counter(mask for _, mask in best).values()) == 1:
        chosen, rivals = best, {}
    else:  # several images for a mask
        order = sorted(counts, key=lambda name: (-counts[name], name))
        chosen, rivals = by_family[order[0]], {name: counts[name] for name in order[1:]}
        chosen = _one_per_mask(chosen)
    return Candidate(family, [*masks], [Pair(images[i], m) for i, m in chosen], rivals=rivals)


def _join(
    images: Mapping[str, tuple[str, ...]],
    keyed: Mapping[str, tuple[str, str, str]],
    masks: Iterable[tuple[tuple[str, str, str], str]],
    level: int,
) -> list[tuple[str, str]]:
    """Return images and masks with one key; none for a key that several masks have."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for keys, name in masks:
        by_key[keys[level]].append(name)
    return [(name, by_key[key][0]) for name in images if len(by_key.get(key := keyed[name][level], ())) == 1]


def _one_per_mask(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of the most frequent suffix of images where a mask has several images."""
    suffixes = Counter(PurePosixPath(image).suffix for image, _ in pairs)
    by_mask: dict[str, str] = {}
    for image, mask in sorted(pairs, key=lambda pair: (-suffixes[PurePosixPath(pair[0]).suffix], pair[0])):
        by_mask.setdefault(mask, image)
    return [(image, mask) for mask, image in by_mask.items()]
