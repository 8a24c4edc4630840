"""Augmentation on the device, in batch: image, labels and validity together, any number of bands."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from geo_seg.config.augment import AugmentConfig
from geo_seg.errors import ConfigError

_LABEL_RANGE = 3.0  # standard deviations on both sides of the mean that a gamma bends between


class Augment(nn.Module):
    """Random changes to standardised windows, drawn per sample.

    A pixel that isn't valid never mixes into its neighbours; what turns in from outside the frame is not
    valid and has the label ignore_index.

    Args:
        config: the strength of each change; see AugmentConfig.
        ignore_index: label of pixels that don't count.
        margin: pixels on each side that can turn in, and are cut off; see AugmentConfig.margin.

    Raises:
        ConfigError: a transform of the user's can't be built.
    """

    def __init__(self, config: AugmentConfig, ignore_index: int, margin: int = 0) -> None:
        super().__init__()
        self.config = config
        self.margin = margin
        self.ignore_index = ignore_index
        self._transforms = [_instantiate(options) for options in config.transforms]

    def forward(
        self, image: Tensor, labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augments a batch of square windows.

        Args:
            image: (N, bands, side, side) float, 0 where not valid; a window with its margin.
            labels: (N, side, side) integer.
            valid: (N, side, side) bool.
            generator: on the image's device; decides all draws, also those of transforms that draw from
                torch's own.

        Returns:
            The three of them, changed, without the margin.
        """
        c = self.config
        if c.d4:
            turn = torch.randint(8, (len(image),), generator=generator, device=image.device)
            image, labels, valid = (_d4(tensor, turn) for tensor in (image, labels, valid))
        if c.rotate or c.shear or c.scale_range() != (1, 1):
            image, labels, valid = self._warp(image, labels, valid, generator)
        image = self._radiometry(image, generator)
        if self._transforms:
            image, labels, valid = self._user_transforms(image, labels, valid, generator)
        return torch.where(valid.unsqueeze(1), image, 0.0), labels, valid

    def _warp(
        self, image: Tensor, labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, side = len(image), image.shape[-1] - 2 * self.margin
        angle = _uniform(n, math.radians(self.config.rotate), generator)
        shear = torch.tan(_uniform(n, math.radians(self.config.shear), generator))
        least, most = (math.log(scale) for scale in self.config.scale_range())
        scale = torch.exp((least + most) / 2 + _uniform(n, (most - least) / 2, generator))
        zoom = side / image.shape[-1] / scale
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        zero = torch.zeros_like(cos)
        theta = torch.stack((cos, cos * shear - sin, zero, sin, sin * shear + cos, zero), 1).view(n, 2, 3)
        grid = F.affine_grid(theta, [n, 1, side, side], align_corners=False)
        weight = F.grid_sample(valid.unsqueeze(1).float(), grid, align_corners=False)  # (N, 1, side, side)
        warped = F.grid_sample(image, grid, align_corners=False) / weight.clamp_min(1e-6)
        turned = F.grid_sample(self._encode_labels(labels), grid, mode="nearest", align_corners=False)
        kept = weight.squeeze(1) > 0.5
        return warped, self._decode_labels(turned, kept, labels.dtype), kept

    def _encode_labels(self, labels: Tensor) -> Tensor:
        """Labels as (N, 1, S, S) float; 0, which all warps fill in, stands for ignore_index."""
        return labels.unsqueeze(1).float() - self.ignore_index

    def _decode_labels(self, shifted: Tensor, valid: Tensor, dtype: torch.dtype) -> Tensor:
        labels = (shifted.squeeze(1) + self.ignore_index).round().to(dtype)
        return torch.where(valid, labels, self.ignore_index)

    def _user_transforms(
        self, image: Tensor, labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        shifted, kept = self._encode_labels(labels), valid.unsqueeze(1).float()
        devices = [image.device] if image.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(generator.initial_seed())
            for transform in self._transforms:
                image, shifted, kept = _transformed(transform, image, shifted, kept)
        valid = kept.squeeze(1) > 0.5
        return image, self._decode_labels(shifted, valid, labels.dtype), valid

    def _radiometry(self, image: Tensor, generator: torch.Generator) -> Tensor:
        c, shape = self.config, (*image.shape[:2], 1, 1)
        if c.gain:
            image = image * (1 + _uniform(shape, c.gain, generator))
        if c.bias:
            image = image + _uniform(shape, c.bias, generator)
        if c.gamma:
            image = _gamma_curve(image, torch.exp(_uniform(shape, math.log1p(c.gamma), generator)))
        if c.noise:
            noise = torch.randn(image.shape, generator=generator, device=image.device)
            image = image + c.noise * noise
        if c.band_drop:
            draw = torch.rand(shape, generator=generator, device=image.device)
            keep = (draw >= c.band_drop) | (draw == draw.amax(1, keepdim=True))  # one band always stays
            image = image * keep
        return image


def _instantiate(options: Any) -> Any:
    try:
        return instantiate(options)
    except InstantiationException as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"augment.transforms: {options.get('_target_')}: {reason}") from error


def _transformed(
    transform: Any, image: Tensor, labels: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Calls a transform of the user's: torchvision's sample by sample, any other on the batch."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import Transform

    if not isinstance(transform, Transform):
        changed: tuple[Tensor, Tensor, Tensor] = transform(image, labels, valid)
        return changed
    samples = [
        transform(tv_tensors.Image(i), tv_tensors.Mask(y), tv_tensors.Mask(v))
        for i, y, v in zip(image, labels, valid, strict=True)
    ]
    images, masks, kept = (
        torch.stack([part.as_subclass(Tensor) for part in parts]) for parts in zip(*samples, strict=True)
    )
    return images, masks, kept


def _gamma_curve(image: Tensor, exponent: Tensor) -> Tensor:
    """A power curve through the ends of the span; values below it follow the mirrored curve."""
    share = (image + _LABEL_RANGE).div_(2 * _LABEL_RANGE)
    bent = share.abs().clamp_min_(1e-6).log_().mul_(exponent).exp_()
    return torch.copysign(bent, share, out=bent).mul_(2 * _LABEL_RANGE).sub_(_LABEL_RANGE)


def _uniform(shape: int | tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    size = (shape,) if isinstance(shape, int) else shape
    return (torch.rand(size, generator=generator, device=generator.device) * 2 - 1) * bound


def _d4(tensor: Tensor, turn: Tensor) -> Tensor:
    """One of the eight flips and quarter turns per sample; no sample is picked out, so a GPU doesn't wait."""
    turn = turn.view(-1, *[1] * (tensor.dim() - 1))
    tensor = torch.where((turn & 1).bool(), tensor.transpose(-1, -2), tensor)
    tensor = torch.where((turn & 2).bool(), tensor.flip(-1), tensor)
    return torch.where((turn & 4).bool(), tensor.flip(-2), tensor)
