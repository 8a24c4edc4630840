"""Words in paths: which files are images and which are masks, and what both are called without them."""

import re
from functools import lru_cache

_MASK_WORDS = {
    *("mask", "masks", "msk", "msks", "label", "labels", "lbl", "lbls", "gt", "gts", "groundtruth", "truth"),
    *("annotation", "annotations", "annot"),
}
_WEAK_MASK_WORDS = {
    *("seg", "segmentation", "segmentations", "target", "targets", "lulc", "landcover", "ann", "anns"),
}
_IMAGE_WORDS = {
    *("image", "images", "img", "imgs", "imagery", "sat", "satellite", "rgb", "rgbn", "rgbnir", "irrg"),
    *("ortho", "orthos", "orthophoto", "raster", "rasters", "input", "inputs", "aerial", "source", "src"),
    *("top", "photo", "photos"),
}
_FILLERS = {"ground", "dir", "data"}  # say nothing beside one of these words
_ROLE_WORDS = _MASK_WORDS | _WEAK_MASK_WORDS | _IMAGE_WORDS
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Split by the word for it in the name of a file or folder."""


@lru_cache(maxsize=100_000)  # names of folders come again and again
def tokens(text: str) -> tuple[str, ...]:
    """Return the words, numbers and separators of a name, in order."""
    return tuple(re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d]+", text))


def parts_of(name: str) -> tuple[str, ...]:
    """Return the folders of a path and the name of the file without suffix."""
    *folders, file = name.split("/")
    return (*folders, file.rpartition(".")[0] or file)


def is_mask_name(name: str) -> bool:
    """Return whether a path says that the file is a mask: the word nearest to the file counts."""
    *folders, stem = parts_of(name)
    words = _words(stem)
    if not words.isdisjoint(_MASK_WORDS):
        return True
    role = _role_of_folders(tuple(folders))
    return role == "mask" or (role is None and not words.isdisjoint(_WEAK_MASK_WORDS))


def keys_of(name: str) -> tuple[str, str, str]:
    """Return what a path is called without the words for image and mask, from strict to loose.

    The first key keeps what else the folders are called, the second leaves such folders out, the third is
    that of the file alone.
    """
    *folders, stem = parts_of(name)
    plain_stem = _without_role(stem)
    strict, loose = _folder_keys(tuple(folders))
    return f"{strict}/{plain_stem}", f"{loose}/{plain_stem}", plain_stem


def family_of(name: str) -> str:
    """Return what files of one kind share: the folders and ends of names with a word for their kind."""
    *folders, stem = parts_of(name)
    own = "_".join(token for token in tokens(stem.lower()) if token in _ROLE_WORDS)
    return "/".join(filter(None, (_folder_family(tuple(folders)), own)))


@lru_cache(maxsize=10_000)
def _role_of_folders(folders: tuple[str, ...]) -> str | None:
    for words in map(_words, reversed(folders)):
        if words & (_MASK_WORDS | _WEAK_MASK_WORDS):
            return "mask"
        if words & _IMAGE_WORDS:
            return "image"
    return None


@lru_cache(maxsize=10_000)
def _folder_keys(folders: tuple[str, ...]) -> tuple[str, str]:
    strict = map(_without_role, folders)
    loose = ("" if _words(folder) & _ROLE_WORDS else folder.lower() for folder in folders)
    return "/".join(filter(None, strict)), "/".join(filter(None, loose))


@lru_cache(maxsize=10_000)
def _folder_family(folders: tuple[str, ...]) -> str:
    return "/".join(_without_split(folder) for folder in folders if _words(folder) & _ROLE_WORDS)


def split_of_part(part: str) -> str | None:
    """Return train, val or test if the name of a folder, or the begin or end of a file's, says so."""
    words = [token.lower() for token in tokens(part) if token.isalpha()]
    return next((SPLIT_WORDS[word] for word in (*words[:1], *words[-1:]) if word in SPLIT_WORDS), None)


def _words(part: str) -> set[str]:
    return {*tokens(part.lower())}


def _without_role(part: str) -> str:
    """Return a part of a path without the words for its kind, and without what joined them to the rest."""
    words = tokens(part.lower())
    if not {*words} & _ROLE_WORDS:
        return part.lower()
    kept = [word for word in words if word not in _ROLE_WORDS | _FILLERS]
    return re.sub(r"[^a-z\d]+", "_", "".join(kept)).strip("_")


def _without_split(folder: str) -> str:
    words = [word for word in tokens(folder) if word.lower() not in SPLIT_WORDS]
    return "".join(words).strip("_-. ")
