"""Schema and checks of `augment`. No torch in here."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from geo_seg.config.components import target_errors
from geo_seg.config.fields import key
from geo_seg.errors import ConfigError

MIN_KEPT = 0.8
"""Fraction of the valid pixels of a window, as it lies in its scene, that rotation, scale and shear keep."""


@dataclass
class AugmentConfig:
    """Random augmentation of training windows, drawn for every sample; 0 switches one off.

    Attributes:
        name: shown in reports.
        d4: flips and quarter turns.
        rotate: maximum rotation in degrees.
        scale: maximum change of scale, or [minimum, maximum]: 0.2 draws factors from 1 / 1.2 to 1.2, [0.5, 1]
            from half to full size. With rotate and shear it decides how many pixels around a window are read.
        shear: maximum shear in degrees.
        gain: maximum relative change of contrast per band.
        bias: maximum shift of brightness per band, in standard deviations.
        gamma: maximum change of gamma per band; 0.25 draws exponents from 1 / 1.25 to 1.25.
        noise: standard deviation of Gaussian noise, in standard deviations of the band.
        band_drop: probability that a band is blanked (never all of them).
        transforms: user-defined transforms after all others, each with a `_target_`. One of
            torchvision.transforms.v2 receives each sample's standardised image and, as masks, labels and
            validity; anything else is called on the batch with image (N, bands, S, S), labels and validity
            (N, 1, S, S), all float, as kornia.augmentation.AugmentationSequential is with
            data_keys: [input, mask, mask].
    """

    name: str = key(MISSING, in_fingerprint=True)
    d4: bool = key(False, in_fingerprint=True)
    rotate: float = key(0.0, at_least=0, at_most=180, in_fingerprint=True)
    scale: Any = key(0.0, in_fingerprint=True)
    shear: float = key(0.0, at_least=0, at_most=45, in_fingerprint=True)
    gain: float = key(0.0, at_least=0, at_most=1, in_fingerprint=True)  # more would invert the contrast
    bias: float = key(0.0, at_least=0, in_fingerprint=True)
    gamma: float = key(0.0, at_least=0, in_fingerprint=True)
    noise: float = key(0.0, at_least=0, in_fingerprint=True)
    band_drop: float = key(0.0, at_least=0, at_most=1, in_fingerprint=True)
    transforms: list[Any] = key(list, in_fingerprint=True)

    def scale_range(self) -> tuple[float, float]:
        """Return the minimum and maximum scale factor."""
        if isinstance(self.scale, list):
            return self.scale[0], self.scale[1]
        return 1 / (1 + self.scale), 1 + self.scale

    def border(self, window: int) -> int:
        """Return the pixels around a training window that rotation, scale and shear can move into it."""
        sheared_side = 1 + math.tan(math.radians(self.shear))
        worst_angle = min(math.radians(self.rotate), math.atan(1 / sheared_side))  # needs the largest border
        span = (sheared_side * math.cos(worst_angle) + math.sin(worst_angle)) / self.scale_range()[0]
        return max(math.ceil(window * (span - 1) / 2), 0)


_MIN_SCALE, _MAX_SCALE = 0.25, 4.0  # factors; at a quarter 16 times the pixels of a window are read


def augment_errors(augment: AugmentConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with `augment` beside single values out of range."""
    if not _is_scale(augment.scale):
        yield ConfigError(
            f"augment.scale={augment.scale}: expected a number from 0 to {_MAX_SCALE - 1:g}, or "
            f"[minimum, maximum] from {_MIN_SCALE:g} to {_MAX_SCALE:g}"
        )
    for number, transform in enumerate(augment.transforms):
        yield from target_errors("augment", f"augment.transforms[{number}]", transform)


def _is_scale(scale: float | list[float]) -> bool:
    limits = scale if isinstance(scale, list) else [1, scale]
    if len(limits) != 2 or any(type(number) not in {int, float} for number in limits):
        return False
    minimum, maximum = limits if isinstance(scale, list) else (1, 1 + scale)
    return bool(_MIN_SCALE <= minimum <= maximum <= _MAX_SCALE)
