"""Rasters that hold other values than the model has learnt from are mapped with a note, or a warning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geo_seg.errors import DataError
from tests.conftest import write_raster
from tests.end_to_end.test_inference import draw, predict, read, threshold

SEEN = [[200.0, 3400.0], [100.0, 4000.0]]
OUTSIDE = "a raster whose values lie outside all that the model has seen is mapped without a word"
TYPES = "bands of uint8 and of float32 in one image end in a traceback"


def warned(tmp_path: Path, image: np.ndarray, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """What is said on stderr at the end; it is said before and written down, too."""
    path = write_raster(tmp_path / "image.tif", image, nodata=0)
    predict(path, tmp_path / "maps", threshold(seen=SEEN, band_names=["red", "nir"]), **options)
    said = capsys.readouterr()
    known = json.loads((tmp_path / "maps" / "summary.json").read_text())["maps"]["image"].get("warning", "")
    assert said.out.count("WARNING") == said.err.count("WARNING") == bool(known)
    assert known in said.err.replace("\n", "")
    return str(known)


@pytest.mark.fault("radiometry", OUTSIDE)
@pytest.mark.parametrize(
    ("kind", "change", "bands"),
    [
        ("float32", lambda values: values / 1e4, ["red", "nir"]),  # reflectance
        ("uint8", lambda values: values // 40, ["red", "nir"]),  # stretched to 8 bits
        ("uint16", lambda values: values + 20000, ["red", "nir"]),
        ("int16", lambda values: -values, ["red", "nir"]),
        ("uint16", lambda values: values * [[[1]], [[30]]], ["nir"]),
    ],
)
def test_a_raster_of_other_values_is_mapped_with_a_warning_that_names_them(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    change: Any,
    bands: list[str],
) -> None:
    values = np.random.default_rng(0).integers(300, 3000, (2, 150, 420))
    text = warned(
        tmp_path, np.maximum(change(values), 1e-3 if kind == "float32" else -1e9).astype(kind), capsys
    )
    assert [band in text for band in ("red", "nir")] == [band in bands for band in ("red", "nir")]
    limits = {"red": "200 to 3400 in training", "nir": "100 to 4000 in training"}
    assert all(limits[band] in text for band in bands)


@pytest.mark.fault("radiometry", OUTSIDE)
@pytest.mark.parametrize("case", ["as in training", "a corner of snow", "nodata", "unknown"])
def test_a_raster_with_values_of_training_or_none_has_no_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    image = np.random.default_rng(0).integers(300, 3000, (2, 150, 420)).astype(np.uint16)
    if case == "a corner of snow":
        image[:, :60] = 9000
    if case == "nodata":
        image[:] = 0
    if case == "unknown":
        path = write_raster(tmp_path / "image.tif", image + 20000)
        predict(path, tmp_path / "maps", threshold())
        assert "WARNING" not in "".join(capsys.readouterr())
    else:
        assert warned(tmp_path, image, capsys) == ""


@pytest.mark.fault("radiometry", OUTSIDE)
def test_reflectance_is_unlike_numbers_that_begin_at_0_though_it_lies_within_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).uniform(0.03, 0.3, (2, 40, 50)).astype(np.float32)
    path = write_raster(tmp_path / "image.tif", image)
    model = threshold(seen=[[0.0, 3400.0], [0.0, 4000.0]], band_names=["red", "nir"])
    predict(path, tmp_path / "maps", model)
    said = capsys.readouterr().err
    assert "band red is nearly constant (0 to 3400 in training, 0.0" in said
    image[1] *= 10000
    write_raster(path, image)
    predict(path, tmp_path / "maps", model)
    assert capsys.readouterr().err == ""


@pytest.mark.fault("radiometry", OUTSIDE)
def test_a_dry_run_warns_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_raster(tmp_path / "image.tif", draw((2, 40, 50)) + np.uint16(20000))
    predict(path, tmp_path / "maps", threshold(seen=SEEN), dry_run=True)
    assert "WARNING" in capsys.readouterr().out


@pytest.mark.fault(
    "radiometry", "scenes differ in scale and offset, as Sentinel-2 before and after baseline 04.00"
)
@pytest.mark.parametrize("known", [[[1e-4, 0.0], [1e-4, 0.0]], None])
def test_another_scale_and_offset_than_in_training_or_in_the_first_raster_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known: Any
) -> None:
    for name, offset in (("a", 0.0), ("b", -0.1)):
        path = write_raster(tmp_path / "in" / f"{name}.tif", draw((2, 40, 50)))
        with rasterio.open(path, "r+") as target:
            target.scales, target.offsets = (1e-4, 1e-4), (offset, offset)
    predict(tmp_path / "in", tmp_path / "maps", threshold(scale_offset=known))
    [note] = [line for line in capsys.readouterr().out.splitlines() if "scale and offset" in line]
    whose = "the training images" if known else str(tmp_path / "in" / "a.tif")
    assert note.startswith(
        f"note: {tmp_path / 'in' / 'b.tif'}: declares another scale and offset "
        f"(scale 0.0001 and offset -0.1) than {whose} (scale 0.0001 and offset 0);"
    )


@pytest.mark.fault("radiometry", TYPES)
@pytest.mark.parametrize("bands", [None, [1, 2]])
def test_bands_of_different_types_are_refused_and_those_of_one_type_are_read(
    tmp_path: Path, bands: list[int] | None
) -> None:
    image = draw((2, 40, 50))
    write_raster(tmp_path / "one.tif", image)
    write_raster(tmp_path / "two.tif", image[0].astype(np.float32))
    path = tmp_path / "both.vrt"
    source = "<SimpleSource><SourceFilename>{}</SourceFilename><SourceBand>{}</SourceBand></SimpleSource>"
    listed = [("UInt16", "one.tif", 1), ("UInt16", "one.tif", 2), ("Float32", "two.tif", 1)]
    parts = [
        f'<VRTRasterBand dataType="{kind}" band="{n}">{source.format(tmp_path / name, band)}</VRTRasterBand>'
        for n, (kind, name, band) in enumerate(listed, 1)
    ]
    path.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{"".join(parts)}</VRTDataset>')
    if bands is None:
        model = threshold(band_names=["1", "2", "3"], mean=[0.0] * 3, std=[1.0] * 3)
        with pytest.raises(
            DataError, match="band 1 holds uint16, band 3 holds float32; the bands of an image"
        ):
            predict(path, tmp_path / "maps", model)
    else:
        predict(path, tmp_path / "maps", threshold(bands=bands))
        predict(tmp_path / "one.tif", tmp_path / "maps", threshold())
        np.testing.assert_array_equal(
            read(tmp_path / "maps" / "both_classes.tif"), read(tmp_path / "maps" / "one_classes.tif")
        )
