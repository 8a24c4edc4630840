"""Simulated satellite image of a landscape: reflectance, sun and shadow, haze, clouds, noise."""

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.demo.canvas import CROPS, FIELD, FOREST, MATERIALS, NUMBER, WATER, Floats, Landscape, noise

BANDS = ("blue", "green", "red", "nir")

_LEAFY = ("cereal", "maize", "pasture", "rapeseed")
_SUN = (0.8, 0.6)  # rows and columns towards the sun, in the southeast, per pixel of height
_MAX_SHADOW = 7  # length in pixels
_SKYLIGHT = (0.42, 0.36, 0.31, 0.27)  # share of the light that reaches a shadow, per band
_HAZE = (300, 190, 120, 60)  # maximum per band, reflectance x 10000
_CLOUD = (5200, 5150, 5100, 5000)
_CLOUD_SHADOW = (-58, -44)  # rows and columns from a cloud to its shadow


def photograph(draw: np.random.Generator, land: Landscape, cloud: Floats) -> NDArray[np.uint16]:
    """Simulate the image of a landscape.

    Args:
        draw: random generator for the state of the crops, the light and the noise.
        land: the landscape.
        cloud: (H, W) opacity of the cloud, 0 to 1.

    Returns:
        (bands, H, W) reflectance x 10000, positive.
    """
    shape = land.labels.shape
    image = _surface(draw, land) * _light(draw, land)
    image *= 1 - 0.6 * cloud_shadow(cloud)
    image += cloud * (np.reshape(_CLOUD, (-1, 1, 1)) - image)
    slope = np.linspace(-1, 1, shape[1], dtype=np.float32) * draw.choice([-1, 1])
    gain = draw.uniform(0.94, 1.06) * draw.normal(1, 0.02, (len(BANDS), 1, 1))
    image *= (1 + 0.06 * slope) * gain
    haze = np.clip(0.5 + 0.25 * noise(draw, shape, 160), 0, 1) * draw.uniform(0.3, 1)
    image += haze * np.reshape(_HAZE, (-1, 1, 1))
    image = _blur(image.astype(np.float32))
    image += draw.standard_normal(image.shape, dtype=np.float32) * (14 + 0.014 * image)
    return np.clip(np.rint(image), 1, 65535).astype(np.uint16)


def draw_cloud(draw: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Return (H, W) the opacity, 0 to 1, of a small cloud in the middle of the frame."""
    rows, cols = np.indices(shape, dtype=np.float32)
    middle = draw.uniform(0.4, 0.6, 2) * shape
    distance = np.hypot(rows - middle[0], (cols - middle[1]) * 0.7) / 34
    puffs = 0.35 * noise(draw, shape, 14) + 0.12 * noise(draw, shape, 4)
    cloud: Floats = np.clip(1.6 * (1 - distance + puffs * (distance < 1.6)), 0, 1).astype(np.float32)
    return cloud


def cloud_shadow(cloud: Floats) -> Floats:
    """Return (H, W) the strength, 0 to 1, of the cloud's shadow."""
    return np.roll(cloud, _CLOUD_SHADOW, (0, 1))


def _surface(draw: np.random.Generator, land: Landscape) -> Floats:
    """Return (bands, H, W) the reflectance in uniform light."""
    shape = land.labels.shape
    spectra = np.array(list(MATERIALS.values()), np.float32).T
    image = spectra[:, land.material]
    parcels = int(land.parcel.max()) + 1
    field = land.labels == FIELD
    # leaves that don't cover the soil yet, by parcel and patch
    leafy = field & np.isin(land.material, [NUMBER[name] for name in _LEAFY])
    sparse = draw.uniform(-0.1, 0.4, parcels).astype(np.float32)[land.parcel]
    sparse += 0.07 * noise(draw, shape, 30) + 0.06 * noise(draw, shape, 6)
    sparse = np.clip(sparse, 0, 0.8) * leafy
    image += sparse * (spectra[:, NUMBER["soil"], None, None] - image)
    image *= _tillage(draw, land, parcels)
    # how much a surface varies within itself, at a wide and at a narrow scale
    wide = np.select([field, land.labels == FOREST, land.labels == WATER], [0.05, 0.09, 0.1], 0.06)
    narrow = np.select([field, land.labels == FOREST, land.labels == WATER], [0.035, 0.07, 0.015], 0.07)
    image *= np.exp(wide * noise(draw, shape, 35) + narrow * noise(draw, shape, 2.5)).astype(np.float32)
    # yellower or bluer, in patches
    image[[0, 2]] *= np.exp(0.05 * noise(draw, shape, 20)) ** np.array([-1, 1])[:, None, None]
    return image


def _tillage(draw: np.random.Generator, land: Landscape, parcels: int) -> Floats:
    """Return (H, W) factors for differences of parcels, crop rows and wheel tracks."""
    tilled = np.isin(land.material, [NUMBER[name] for name in CROPS if name != "pasture"])
    offset = draw.normal(0, 0.1, parcels).astype(np.float32)[land.parcel]
    pitch = draw.uniform(3.2, 7, parcels).astype(np.float32)[land.parcel]
    depth = draw.uniform(0, 0.1, parcels).astype(np.float32)[land.parcel]
    lines = depth * np.sin(2 * np.pi * land.across / pitch)
    wheels = -0.12 * (np.mod(land.across, 14) < 1)
    changes = offset * (land.labels == FIELD) + (lines + wheels) * tilled
    return np.exp(changes).astype(np.float32)


def _light(draw: np.random.Generator, land: Landscape) -> Floats:
    """Return (bands, H, W) factors for sun on slopes and for shadows."""
    height = land.height
    shaded = np.zeros(height.shape, bool)
    for steps in range(1, _MAX_SHADOW + 1):
        shaded |= _towards_sun(height, steps) - steps > height
    facing = np.clip(height - _towards_sun(height, 1), -1, 1)
    hills = 0.05 * noise(draw, height.shape, 110)
    sky = np.reshape(np.array(_SKYLIGHT, np.float32), (-1, 1, 1))
    light: Floats = np.where(shaded, sky, 1) * (1 + hills + 0.22 * facing)
    return light.astype(np.float32)


def _towards_sun(height: Floats, steps: int) -> Floats:
    """Return for each pixel the height that many steps towards the sun."""
    down, right = round(steps * _SUN[0]), round(steps * _SUN[1])
    moved = np.zeros_like(height)
    moved[: height.shape[0] - down, : height.shape[1] - right] = height[down:, right:]
    return moved


def _blur(image: Floats) -> Floats:
    """Blur an image as the optics do: light of a pixel falls on its neighbours, too."""
    for axis in (1, 2):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        size = image.shape[axis]
        before, after = (np.take(padded, np.arange(size) + step, axis) for step in (0, 2))
        image = 0.6 * image + 0.2 * (before + after)
    return image
