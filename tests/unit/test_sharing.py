"""Files that people hand on hold no absolute path, and no name of a user or a host."""

from pathlib import Path
from typing import Any

import pytest

from geo_seg.runtime.redaction import redact_config, relative_name, short_names, strip_paths

PLACES = pytest.mark.fault("privacy", "checkpoints, report.html and summary.txt hold absolute paths")
NAMED = pytest.mark.fault("privacy", "summary.json and names of scenes hold absolute paths and signed URLs")


@PLACES
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/data/set/images/a.tif", "images/a.tif"),
        ("/data/set", "."),
        ("/data/other/a.tif", "a.tif"),
        ("/data/settled/a.tif", "a.tif"),
        ("/home/alice/x.pth", "x.pth"),
        ("~/x.pth", "x.pth"),
        ("../alice/x.pth", "x.pth"),
        (r"C:\Users\alice\x.pth", "x.pth"),
        (r"\\host\share\x.pth", "x.pth"),
        ("https://alice:word@host:8000/a/x.tif?sig=secret", "x.tif"),
        ("s3://bucket/a/x.tif", "x.tif"),
        ("/vsicurl/https://host/x.tif?sig=secret", "x.tif"),
        ("/", "."),
    ],
)
def test_a_place_is_said_relative_to_the_data_or_by_its_name(place: str, expected: str) -> None:
    assert relative_name(place, "/data/set") == expected


def test_a_relative_place_is_said_relative_to_the_folder_that_holds_it() -> None:
    assert relative_name("runs/a/one/checkpoints/best.ckpt", "runs/a") == "one/checkpoints/best.ckpt"
    assert relative_name("model.ckpt", ".") == "model.ckpt"
    assert relative_name(Path("runs/a/x.ckpt"), "other", "runs") == "a/x.ckpt"


@NAMED
@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["/home/alice/a.tif", "/home/alice/b.tif"], ["a.tif", "b.tif"]),
        (["/home/alice/x/a.tif", "/home/alice/y/a.tif"], ["x/a.tif", "y/a.tif"]),
        (["https://host/a.tif?sig=1", "/home/alice/b.tif"], ["a.tif", "b.tif"]),
        (["https://host/1/a.tif?sig=1", "https://host/2/a.tif"], ["1/a.tif", "2/a.tif"]),
        (["/a.tif"], ["a.tif"]),
        ([], []),
    ],
)
def test_places_are_named_by_as_little_as_tells_them_apart(places: list[str], expected: list[str]) -> None:
    assert list(short_names(places).values()) == expected


@NAMED
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "/home/alice/a.tif: cannot be opened (/home/alice/a.tif: No such file)",
            "a.tif: cannot be opened (a.tif: No such file)",
        ),
        ("'/home/alice/a.tif', '/x/b'", "'a.tif', 'b'"),
        ("5/8 of 1.5 px/s, n/a, images/x/a.tif, see docs/data.md", None),
        ("dataset.root=/home/alice/data: no such folder", "dataset.root=data: no such folder"),
        ("needs https://host/a/b and ~/x/y", "needs https://host/a/b and y"),
        (r"C:\Users\alice\a.tif: missing", "a.tif: missing"),
    ],
)
def test_messages_lose_the_folders_of_their_paths(text: str, expected: str | None) -> None:
    assert strip_paths(text) == (text if expected is None else expected)


@NAMED
def test_known_places_are_replaced_as_a_whole() -> None:
    known = {"/home/a b/c.tif": "c.tif", "/home/a b/c.tif.msk": "c.tif.msk"}
    assert strip_paths("/home/a b/c.tif.msk, /home/a b/c.tif", known) == "c.tif.msk, c.tif"


@PLACES
def test_a_configuration_is_shared_with_relative_paths_and_what_labels_mean_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    classes = [{"name": "/n/a/x", "values": ["/home/x/y"], "color": "#000000"}]
    config: dict[str, Any] = {
        "dataset": {
            "name": "demo",
            "root": "demo",
            "images": ["/abs/images/*.tif", "images/*.tif"],
            "manifest": "/home/alice/m.csv",
            "cache_dir": "/scratch/alice",
            "classes": classes,
            "ignore_values": ["/home/x/y"],
            "label": {"layer": "/a/b/c", "attribute": None},
            "split": {"group": r"/(\d+)/", "val": 0.2, "test": "../lists/test.txt"},
            "samples": {"_target_": "mine.Samples", "places": {"left": "/home/alice/left"}},
        },
        "model": {"name": "unet", "weights": "/home/alice/x.pth"},
        "logger": {"mlflow": {"tracking_uri": "http://alice:word@host:5000"}},
        "callbacks": {"mine": {"dirpath": "~/runs", "note": "kept in /home/alice/runs, as always"}},
        "checkpoint": None,
        "seed": 3,
        "debug": False,
    }
    found = redact_config(config)
    data = found["dataset"]
    assert data["classes"] == classes and data["ignore_values"] == ["/home/x/y"]
    assert data["label"]["layer"] == "/a/b/c" and data["split"] == {
        "group": r"/(\d+)/",
        "val": 0.2,
        "test": "test.txt",
    }
    assert data["root"] == "." and data["name"] == "demo"
    assert data["images"] == ["*.tif", "images/*.tif"] and data["manifest"] == "m.csv"
    assert data["cache_dir"] == "~" and data["samples"]["places"] == {"left": "left"}
    assert found["model"] == {"name": "unet", "weights": "x.pth"}
    assert found["logger"]["mlflow"]["tracking_uri"] == "."
    assert found["callbacks"]["mine"] == {"dirpath": "runs", "note": "kept in runs, as always"}
    assert (found["checkpoint"], found["seed"], found["debug"]) == (None, 3, False)
    assert config["dataset"]["root"] == "demo"  # which is not changed
