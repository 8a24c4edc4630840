"""The schema of `augment`, and its checks. No torch in here."""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geo_seg.config.components import check_target
from geo_seg.errors import ConfigError


@dataclass
class AugmentConfig:
    """Random changes to training windows, drawn anew for every sample; 0 switches one off.

    Attributes:
        name: its name in reports.
        d4: flips and quarter turns.
        rotate: largest rotation in degrees.
        scale: largest change of scale, or the least and the most: 0.2 draws between 1 / 1.2 and 1.2, [0.5, 1]
            between half and full size. With rotate and shear it decides how much more than a window is read.
        shear: largest shear in degrees.
        gain: largest relative change of contrast per band.
        bias: largest shift of brightness per band, in standard deviations.
        gamma: largest bend of the brightness curve per band; 0.25 draws exponents between 1 / 1.25 and 1.25.
        noise: standard deviation of added noise, in standard deviations of the band.
        band_drop: probability that a band is blanked (never all of them).
        transforms: your own after all others, each with a `_target_`. One of torchvision.transforms.v2 gets
            each sample's standardised image and, as masks, labels and validity; anything else is called
            on the batch with image (N, bands, S, S), labels and validity (N, 1, S, S), all float, as
            kornia.augmentation.AugmentationSequential is with data_keys: [input, mask, mask].
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
        """The least and the most that sizes are multiplied by."""
        if isinstance(self.scale, list):
            return self.scale[0], self.scale[1]
        return 1 / (1 + self.scale), 1 + self.scale

    def border(self, window: int) -> int:
        """Pixels beside each side of a training window that rotation, scale and shear can turn in."""
        lean = 1 + math.tan(math.radians(self.shear))
        widest = min(math.radians(self.rotate), math.atan(1 / lean))  # shows most, of all angles
        reach = (lean * math.cos(widest) + math.sin(widest)) / self.scale_range()[0]
        return max(math.ceil(window * (reach - 1) / 2), 0)


_MIN_SCALE, _MAX_SCALE = 0.25, 4.0  # scales; at a quarter 16 times the pixels of a window are read
_AUGMENT_RANGES = {  # the most of each
    "rotate": 180.0,
    "shear": 45.0,
    "gain": 1.0,  # more would turn brightness round
    "bias": math.inf,
    "gamma": math.inf,
    "noise": math.inf,
    "band_drop": 1.0,
}


def check_augment(augment: AugmentConfig) -> None:
    """Raise ConfigError for a value of `augment` out of its range."""
    for key, most in _AUGMENT_RANGES.items():
        if not 0 <= (value := getattr(augment, key)) <= most:
            expected = "0 or more" if math.isinf(most) else f"0 to {most:g}"
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
        f"augment.scale={scale}: expected a number from 0 to {_MAX_SCALE - 1:g}, or [least, most] "
        f"from {_MIN_SCALE:g} "
        f"to {_MAX_SCALE:g}"
    )
