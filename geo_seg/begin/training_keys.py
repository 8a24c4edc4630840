"""Keys of the YAML on bands, split, windows and the loss."""

from geo_seg.begin.images import ImageLook
from geo_seg.begin.labels.classes import ClassPlan
from geo_seg.begin.layout import Layout
from geo_seg.begin.splits import SplitPlan
from geo_seg.begin.yaml_text import Plan, csv_text, quoted

_MAX_WINDOW = 256
_MIN_WINDOW = 16
_STEPS = 8  # of an epoch, that a batch should leave
_UNEVEN = 3.0  # times as many pixels of one class as of another


def add_bands(plan: Plan, layout: Layout, look: ImageLook) -> None:
    """Add bands and nodata of the images."""
    draft, first = plan.draft, look.first
    what = f"{first.dtype}, {look.resolution}"
    if layout.bands and len(layout.pairs[0].images) > 1:
        draft.add(
            "bands", None, f"all {len(layout.bands.bands)} files: {', '.join(layout.bands.bands)}; {what}"
        )
    elif look.alpha_is_data:
        bands = sorted((*first.bands, *first.alpha))
        why = f"the band marked as alpha holds measurements, near infrared perhaps; {what}"
        draft.add("bands", bands, why, True)
    elif (
        all(first.names)
        and len({*first.names}) == len(first.names)
        and not layout.lone_images
        and not layout.takes_masks
    ):
        draft.add("bands", [*first.names], f"all, by the names in the files; {what}")
    else:
        names = ", ".join(filter(None, first.names)) or "no names in the files"
        draft.add("bands", None, f"all {len(first.bands)}: {names}; {what}")
    declared = {value for value in first.nodata if value is not None}
    if look.nodata is not None:
        draft.add("nodata", look.nodata, "pixels with this value in all bands, and no file declares it", True)
    elif declared:
        plan.draft.sure.append(
            f"nodata: {', '.join(f'{value:g}' for value in declared)}, as the files declare"
        )
        plan.draft.lines.append(
            f"nodata: null # the files declare {', '.join(f'{value:g}' for value in declared)}"
        )
    if look.zero_share:
        why = f"up to {look.zero_share:.0%} of an image is 0 in all bands, from its border on"
        draft.add("zero_is_nodata", True, why, True)


def add_split(plan: Plan, split: SplitPlan, table_path: str) -> None:
    """Add the split, and the table of places that it needs; see plan_dataset."""
    draft = plan.draft
    draft.lines.append("split:")
    keys = dict(split.keys)
    if split.places is not None:
        keys |= {"table": f"{table_path}_places.csv", "column": "place"}
        plan.tables["_places.csv"] = csv_text([("image", "place"), *split.places.items()])
    draft.add("by", keys.pop("by"), split.why, split.guess, indent="  ")
    for key in ("train", "val", "test", "group", "table", "column", "block"):
        if key in keys:
            share = split.guess and key in {"val", "test", "group", "block"}
            draft.add_text(f"  {key}: {quoted(keys[key])}", _SPLIT_REASONS[key] if share else "", share)


_SPLIT_REASONS = {
    "val": "a usual share",
    "test": "a usual share",
    "group": "what it captures is the place of an image",
    "block": "pixels; some windows wide",
}


def add_loading(plan: Plan, look: ImageLook, split: SplitPlan, classes: ClassPlan) -> None:
    """Add window, batch size and normalisation, and the loss as a comment."""
    draft = plan.draft
    side = look.sides[len(look.sides) // 10]
    window = split.window or max(min(1 << (side.bit_length() - 1), _MAX_WINDOW), _MIN_WINDOW)
    small = (
        f"the largest power of 2 in images of {side} px and more"
        if window < _MAX_WINDOW
        else f"images have {side} px and more"
    )
    draft.add("window", window, "fits into blocks some times" if split.window else small, True)
    area = sum(header.height * header.width for header in look.headers.values())
    area = int(area * plan.scenes / max(len(look.headers), 1))
    windows = max(int(0.6 * area / window**2), 1)
    usual = 8 if window >= _MAX_WINDOW else 16
    batch = max(min(usual, 1 << max((windows // _STEPS).bit_length() - 1, 0)), 4 if windows >= _STEPS else 2)
    draft.add("batch_size", batch, f"about {windows} windows in an epoch; more if memory allows", True)
    draft.add(
        "normalize",
        "standardize",
        f"mean and deviation of the training pixels, for any {look.first.dtype} values",
        True,
    )
    shares = [row.share for row in classes.rows if row.share]
    ratio = max(shares, default=1) / min(shares, default=1)
    uneven = (
        f"the most frequent class has {ratio:.0f} times what the rarest has"
        if ratio >= _UNEVEN
        else "classes are about even"
    )
    reason = f"{uneven}; the loss makes its own class weights of the training pixels, so none stand above"
    plan.loss = ("weighted_cross_entropy", reason)
    draft.lines.append(f"# guess: loss=weighted_cross_entropy (the default): {reason}")
    draft.guesses.append(f"loss=weighted_cross_entropy (the default): {reason}")
