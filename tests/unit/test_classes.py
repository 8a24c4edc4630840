"""The class table maps mask values to labels, and says which values fit nothing."""

import numpy as np
import pytest

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import build_class_table, check_mask
from geo_seg.errors import ConfigError, DataError


def config(**options: object) -> DatasetConfig:
    return DatasetConfig(name="x", root=".", images="", masks="", **options)  # type: ignore[arg-type]


def test_names_alone_are_numbered_from_0_and_get_colours() -> None:
    table = build_class_table(config(classes=["a", "b"]))
    assert table.values == ((0,), (1,))
    assert len(set(table.colors)) == 2
    assert table.ignore_values == (255,)


def test_mask_values_become_labels_and_the_rest_is_ignored() -> None:
    table = build_class_table(config(classes=["a", {"name": "b", "values": [7, 255]}], ignore_values=[9]))
    labels = table.labels(np.array([[0, 7, 255, 9]], np.uint8))
    assert labels.tolist() == [[0, 1, 1, 255]]


def test_inria_masks_that_say_255_for_building_are_not_ignored() -> None:
    table = build_class_table(
        config(mode="binary", classes=["background", {"name": "building", "values": [255]}])
    )
    assert table.ignore_values == ()
    assert table.labels(np.array([0, 255], np.uint8)).tolist() == [0, 1]


def test_values_outside_the_table_are_listed_with_their_counts() -> None:
    table = build_class_table(config(classes=["a", "b"]))
    with pytest.raises(DataError, match=r"m.tif: mask values in no class: 3 \(17 px\), 4 \(2 px\)"):
        check_mask(table, "m.tif", {0: 5, 3: 17, 4: 2, 255: 9}, None)
    check_mask(table, "m.tif", {0: 5, 3: 17}, nodata=3)
    check_mask(build_class_table(config(classes=["a", "b"], unlisted="ignore")), "m.tif", {3: 1}, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a"]}, "1 classes, expected 2 or more"),
        ({"classes": ["a", "b", "c"], "mode": "binary"}, "3 classes, expected 2 .background first"),
        ({"classes": ["a", {"name": "b", "colour": "#000000"}]}, "nothing reads 'colour'.*'color'"),
        (
            {"classes": ["a", {"name": "b", "color": "red"}]},
            "color='red'.*expected .#rrggbb., in quotes",
        ),
        ({"classes": ["a", {"name": "a", "values": [3]}]}, "two are called 'a'; one class may have several"),
        ({"classes": ["a", {"name": "b", "values": [0]}]}, "mask value 0 stands for two classes"),
        ({"classes": ["a", {"name": "b", "values": "1"}]}, "expected a list of integers"),
        ({"classes": ["a", "b"], "ignore_index": 1}, "is the label of class 'b'"),
        ({"classes": ["a", "b"], "ignore_values": [1]}, "1 stands for a class, too"),
        ({"classes": ["a", {"name": "b", "weight": 2}]}, "give every class a weight, or none"),
        ({"classes": ["a", 3]}, "expected a name or a mapping"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_class_table(config(**options))
