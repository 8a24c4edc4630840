"""Schema and checks of `augment`. No torch in here."""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geo_seg.config.components import check_target
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

    name: str = MISSING
    d4: bool = False
    rotate: float = 0.0
    scale: Any = 0.0
    shear: float = 0.0
    gain: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    band_drop: float = 0.0
    transforms: list[Any] = field(default_factory=list)

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
_MAX_AUGMENT = {
    "rotate": 180.0,
    "shear": 45.0,
    "gain": 1.0,  # more would invert the contrast
    "bias": math.inf,
    "gamma": math.inf,
    "noise": math.inf,
    "band_drop": 1.0,
}


def check_augment(augment: AugmentConfig) -> None:
    """Raise ConfigError if a value of `augment` is out of range."""
    for key, maximum in _MAX_AUGMENT.items():
        if not 0 <= (value := getattr(augment, key)) <= maximum:
            expected = "0 or more" if math.isinf(maximum) else f"0 to {maximum:g}"
            raise ConfigError(f"augment.{key}={value}: expected {expected}")
    _check_scale(augment.scale)
    for number, transform in enumerate(augment.transforms):
        check_target("augment", f"augment.transforms[{number}]", transform)


def _check_scale(scale: Any) -> None:
    numbers = scale if isinstance(scale, list) else [scale]
    if all(type(number) in {int, float} for number in numbers):
        limits = scale if isinstance(scale, list) else [1, 1 + scale]
        if len(limits) == 2 and _MIN_SCALE <= limits[0] <= limits[1] <= _MAX_SCALE:
            return
    raise ConfigError(
        f"augment.scale={scale}: expected a number from 0 to {_MAX_SCALE - 1:g}, or [minimum, maximum] "
        f"from {_MIN_SCALE:g} to {_MAX_SCALE:g}"
    )
