"""Statistics in pieces equal those of the whole, for every type; normalisations do what they say."""

import numpy as np
import pytest

from geo_seg.data.band_statistics import BandAccumulator, BandMoments, fit_normalization
from geo_seg.errors import ConfigError, DataError

TYPES = ["uint8", "uint16", "int16", "int32", "float32", "float64"]


def values(dtype: str, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    low, high = (0, 250) if dtype == "uint8" else (0, 20000) if dtype == "uint16" else (-9000, 9000)
    return (draw.beta(2, 5, (2, 300, 400)) * (high - low) + low).astype(dtype)


def found(image: np.ndarray, valid: np.ndarray | None = None) -> BandMoments:
    valid = np.ones(image.shape[1:], bool) if valid is None else valid
    counter = BandAccumulator(len(image), valid.size)
    for row in range(0, len(valid), 70):
        counter.add(image[:, row : row + 70], valid[row : row + 70])
    return BandMoments.of(counter.arrays())


@pytest.mark.parametrize("dtype", TYPES)
def test_pieces_give_the_statistics_of_the_whole(dtype: str) -> None:
    image = values(dtype)
    valid = np.random.default_rng(1).random(image.shape[1:]) > 0.3
    moments = found(image, valid)
    chosen = image[:, valid].astype(float)
    assert moments.pixels == valid.sum()
    np.testing.assert_allclose(moments.mean, chosen.mean(1))
    np.testing.assert_allclose(moments.m2, chosen.var(1) * valid.sum())
    np.testing.assert_array_equal(moments.low, chosen.min(1))
    np.testing.assert_array_equal(moments.high, chosen.max(1))


def test_a_small_spread_around_a_large_mean_does_not_cancel() -> None:
    image = (1e7 + np.random.default_rng(0).normal(size=(1, 300, 300))).astype(np.float64)
    assert fit_normalization("standardize", [found(image)], "float64").std[0] == pytest.approx(image.std())


@pytest.mark.parametrize("dtype", TYPES)
def test_percentile_maps_the_2nd_and_98th_of_several_scenes_to_minus_1_and_1(dtype: str) -> None:
    images = [values(dtype, seed) for seed in range(3)]
    images[1] = images[1][:, :100]
    images[2] = (images[2] // 2).astype(dtype)
    bands = fit_normalization("percentile", [found(image) for image in images], dtype)
    pooled = np.concatenate([image.reshape(2, -1) for image in images], axis=1).astype(float)
    for band in range(2):
        scaled = (pooled[band] - bands.mean[band]) / bands.std[band]
        assert np.mean(scaled < -1) == pytest.approx(0.02, abs=0.004)
        assert np.mean(scaled > 1) == pytest.approx(0.02, abs=0.004)


def test_minmax_maps_the_whole_range_to_minus_1_and_1() -> None:
    image = values("int16")
    bands = fit_normalization("minmax", [found(image[:, :100]), found(image[:, 100:])], "int16")
    scaled = (image - np.array(bands.mean)[:, None, None]) / np.array(bands.std)[:, None, None]
    np.testing.assert_allclose(scaled.min((1, 2)), -1)
    np.testing.assert_allclose(scaled.max((1, 2)), 1)


def test_a_constant_band_is_not_divided_by_zero() -> None:
    image = np.full((2, 50, 50), 7, np.uint8)
    for kind in ("standardize", "percentile", "minmax"):
        assert fit_normalization(kind, [found(image)], "uint8").std == (1.0, 1.0)


def test_scenes_without_a_valid_pixel_change_nothing() -> None:
    image = values("uint16")
    empty = found(image, np.zeros(image.shape[1:], bool))
    for kind in ("standardize", "percentile", "minmax"):
        assert fit_normalization(kind, [empty, found(image)], "uint16") == fit_normalization(
            kind, [found(image)], "uint16"
        )
        with pytest.raises(DataError, match="no valid pixel"):
            fit_normalization(kind, [empty], "uint16")


def test_imagenet_and_none_ask_nothing_of_the_pixels() -> None:
    three = [found(np.zeros((3, 4, 4), np.uint8))]
    assert fit_normalization("imagenet", three, "uint8").mean == (123.675, 116.28, 103.53)
    assert fit_normalization("none", three, "uint8").std == (1.0, 1.0, 1.0)
    with pytest.raises(ConfigError, match="three uint8 bands, the images have 3 of uint16"):
        fit_normalization("imagenet", three, "uint16")
