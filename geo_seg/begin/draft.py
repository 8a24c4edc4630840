"""From what lies in a folder to the lines of the YAML."""

from dataclasses import dataclass
from pathlib import Path

from geo_seg.begin.images import ImageLook, look_at_images
from geo_seg.begin.labels.classes import ClassPlan, classes_of_masks, classes_of_polygons
from geo_seg.begin.labels.legends import read_legends
from geo_seg.begin.layout import Layout, find_layout, keep_images
from geo_seg.begin.listing import Listing
from geo_seg.begin.splits import SplitPlan, plan_split
from geo_seg.begin.training_keys import add_bands, add_loading, add_split
from geo_seg.begin.yaml_text import Draft, Plan, counted, csv_text, quoted
from geo_seg.errors import DataError
from geo_seg.raster.georeference import same_grid
from geo_seg.raster.reader import read_info


@dataclass(frozen=True)
class Choices:
    """What the user chose of it.

    Attributes:
        name: of the data set.
        images: see find_layout.
        masks: see find_layout.
        attribute: see find_layout.
    """

    name: str
    images: str | None = None
    masks: str | None = None
    attribute: str | None = None


def plan_dataset(listing: Listing, choices: Choices, table_path: str) -> Plan:
    """Return the YAML for a folder.

    Args:
        listing: its files.
        choices: of the user.
        table_path: where tables beside the YAML go: a path without end.

    Raises:
        DataError: there is nothing to train on; says what was looked for.
    """
    layout = find_layout(listing, choices.images, choices.masks, choices.attribute)
    look = look_at_images(listing, [pair.images[0] for pair in layout.pairs])
    names = [pair.images[0] for pair in layout.pairs if pair.images[0] not in look.odd]
    notes = _drop_odd_images(look)
    if notes:
        layout = keep_images(layout, names, listing)
    split = plan_split(listing, names, look)
    if split.kept is not None:
        layout = keep_images(layout, split.kept, listing)
        look.headers = {name: look.headers[name] for name in split.kept}
    classes = _classes(listing, layout)
    plan = Plan(Draft(), scenes=len(layout.pairs), notes=[*notes, *split.notes, *classes.notes])
    plan.draft.lines += [
        f"# {choices.name}: written by `geo_seg begin`. What a line rests on stands behind it; look first at",
        '# those that say "guess". Change what is wrong: nothing writes this file again.',
    ]
    plan.draft.add("name", choices.name, "")
    plan.draft.add("root", str(listing.root), "")
    _add_files(plan, layout, listing, split, table_path)
    _add_classes(plan, layout, classes)
    add_bands(plan, layout, look)
    add_split(plan, split, table_path)
    add_loading(plan, look, split, classes)
    return plan


def _drop_odd_images(look: ImageLook) -> list[str]:
    """Leave out images that differ from most in type or bands, and say so."""
    if not look.odd:
        return []
    first = next(iter(look.odd))
    look.headers = {name: header for name, header in look.headers.items() if name not in look.odd}
    return [
        f"{counted(len(look.odd), 'image')} unlike most in bands or type, or unreadable, left out ("
        f"{first} has {look.odd[first]})"
    ]


def _classes(listing: Listing, layout: Layout) -> ClassPlan:
    example, choice = layout.candidate.example, layout.candidate.choice
    family = Path(example).stem if len(layout.candidate.masks) == 1 else choice.rpartition("*.")[0] or choice
    if layout.polygons is not None:
        return classes_of_polygons(layout.polygons, family)
    assert layout.masks is not None  # noqa: S101 - a layout has one of both
    return classes_of_masks(layout.masks, read_legends(listing, example), family)


def _add_files(plan: Plan, layout: Layout, listing: Listing, split: SplitPlan, table_path: str) -> None:
    draft, candidate, pairs = plan.draft, layout.candidate, layout.pairs
    rivals = "; ".join(
        f"{family or 'others'} would do, too ({n}): --images" for family, n in candidate.rivals.items()
    )
    unsure = "; ".join(filter(None, [candidate.guessed, rivals]))
    how = "labelled by one file" if candidate.one_file else "paired with masks by their names"
    manifest = layout.images_globs is None or split.by_split is not None
    if manifest:
        file = f"{table_path}_scenes.csv"
        draft.add(
            "manifest",
            file,
            f"{len(pairs)} images and labels, which no glob pairs: {unsure or 'by their names'}",
            bool(unsure),
        )
        draft.add("allow_outside", True, "the manifest lies beside this file")
        plan.tables["_scenes.csv"] = _manifest(layout, split)
    else:
        globs = layout.images_globs or []
        images = globs[0] if len(globs) == 1 else globs
        draft.add(
            "images",
            images,
            f"{counted(len(pairs), 'image')}; {unsure or how}",
            bool(unsure),
        )
        kinds = "; ".join(layout.alternatives)
        what = "one file for all images" if candidate.one_file else "one file for each image"
        draft.add("masks", layout.masks_glob, f"{what}; {kinds}" if kinds else what, bool(kinds))
        if layout.lone_images:
            why = f"{counted(len(layout.lone_images), 'image')} without a mask, {layout.lone_images[0]} first"
            draft.add("unlabelled", "skip", why, True)
        elif layout.takes_masks:
            draft.add("unlabelled", "skip", "the glob of the images matches masks, which have no masks")
    if manifest:
        plan.notes += layout.alternatives
    for names, what in (
        (layout.lone_images, "without a mask"),
        (layout.lone_masks, "of labels without an image"),
        (layout.rest, "in no pair"),
    ):
        if names:
            more = " ..." if names[3:] else ""
            plan.notes.append(f"{counted(len(names), 'file')} {what}, left out: {', '.join(names[:3])}{more}")
    if listing.unreadable:
        plan.notes.append(
            f"{counted(len(listing.unreadable), 'folder')} cannot be read, {listing.unreadable[0]} first"
        )
    if layout.bands:
        plan.notes += layout.bands.notes
    _add_label(plan, layout, listing)


def _add_label(plan: Plan, layout: Layout, listing: Listing) -> None:
    draft, polygons = plan.draft, layout.polygons
    if polygons is None:
        pair = layout.pairs[0]
        image, mask = read_info(listing.path(pair.images[0])), read_info(listing.path(pair.mask))
        if not same_grid(image, mask):
            if image.crs is None or mask.crs is None:
                raise DataError(
                    f"{pair.mask} has {mask.width} x {mask.height} pixels, its image {pair.images[0]} has "
                    f"{image.width} x {image.height}; expected masks on the grid of their images"
                )
            draft.lines.append("label:")
            draft.add_text("  align: reproject", f"{pair.mask} has another grid than its image", guess=True)
            draft.guesses.append("label.align: reproject: masks have another grid than their images")
        return
    draft.lines.append("label:")
    if polygons.layer:
        draft.add_text(f"  layer: {quoted(polygons.layer)}", "the layer with the most polygons", guess=True)
        draft.guesses.append(f"label.layer: {polygons.layer}: the layer with the most polygons")
    if polygons.attribute:
        others = ", ".join(f"{name} ({n} values)" for name, n in polygons.others.items())
        why = f"{len(polygons.counts)} values on {polygons.polygons} polygons"
        why += f"; others would do: {others}: --attribute" if others else ""
        draft.add_text(f"  attribute: {quoted(polygons.attribute)}", why, guess=True)
        draft.guesses.append(f"label.attribute: {polygons.attribute}: {why}")
    else:
        draft.add_text(
            "  attribute: null",
            f"no attribute looks like classes: each of {polygons.polygons} polygons is one",
            guess=True,
        )
        draft.guesses.append("label.attribute: null: no attribute looks like classes")
    single = polygons.attribute is None or len({*polygons.counts} - {""}) == 1
    uncovered = "background" if single else "ignore"
    if single and polygons.attribute and "background" in polygons.counts:
        uncovered = "other"
    why = (
        "polygons mark all there is of one class"
        if single
        else "what no polygon covers is not labelled; a class's name makes it that class"
    )
    draft.add_text(f"  uncovered: {uncovered}", why, guess=True)
    draft.guesses.append(f"label.uncovered: {uncovered}: {why}")


def _manifest(layout: Layout, split: SplitPlan) -> str:
    by_split = split.by_split
    rows = [("image", "label", *(["split"] if by_split else []))]
    for pair in layout.pairs:
        row = (";".join(pair.images), pair.mask)
        rows.append((*row, by_split[pair.images[0]]) if by_split else row)
    return csv_text(rows)


def _add_classes(plan: Plan, layout: Layout, classes: ClassPlan) -> None:
    draft = plan.draft
    looked = layout.masks
    if looked is None:
        seen, unit = "polygons", "of the polygons"
    else:
        total = len(layout.candidate.masks)
        seen = f"{looked.looked} of {total} masks{' in part' if looked.partly else ''}"
        unit = "of the pixels"
    partial = looked is not None and (
        looked.looked < len({pair.mask for pair in layout.pairs}) or looked.partly
    )
    why = f"{len(classes.rows)} values in {seen}" + ("; others may be in the rest" if partial else "")
    draft.add("mode", classes.mode, why, partial)
    draft.lines.append("classes:")
    for row in classes.rows:
        cells = {"name": row.name, **({"color": row.color} if row.color else {}), "values": row.values}
        share = f"{row.share:.1%} {unit}" if row.share else "none in what was looked at"
        draft.add_text(
            f"  - {quoted(cells)}", f"{row.guess}; {share}" if row.guess else share, bool(row.guess)
        )
    guessed = [row.name for row in classes.rows if row.guess]
    listed = ", ".join(f"{row.name} = {'/'.join(map(str, row.values))}" for row in classes.rows)
    (draft.guesses if guessed else draft.sure).append(
        f"classes: {listed}" + (f"; names are made up: {classes.rows[-1].guess}" if guessed else "")
    )
    if classes.ignored:
        draft.add("ignore_values", classes.ignored, classes.why_ignored, classes.ignored_guess)
    if (
        looked is not None
        and looked.nodata is not None
        and looked.nodata not in {v for r in classes.rows for v in r.values}
    ):
        plan.notes.append(f"mask value {looked.nodata} is declared as nodata in the files and is ignored")
