"""Batched augmentation on the device: image, labels and validity together, any number of bands."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from geo_seg.config.augment import MIN_KEPT, AugmentConfig
from geo_seg.errors import ConfigError

UserTransform = Callable[..., tuple[Tensor, Tensor, Tensor]]
_STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # of a warp that would turn in too much nothing; 0 where none will do
_COARSE_SIDE = 32  # points a side on which that is estimated
_ESTIMATE_ERROR = 0.03  # of the fraction that is valid, as estimated there
_GAMMA_SPAN = 3.0  # standard deviations on both sides of the mean that a gamma bends between


class Augment(nn.Module):
    """Random transforms of normalized windows, drawn per sample.

    Invalid pixels never mix into their neighbours; pixels that a warp takes from outside the frame become
    invalid and get the label ignore_index. A warp that would keep less than MIN_KEPT of the valid pixels that
    the window has as it lies in the scene is weakened, by quarters, until it keeps that.

    Args:
        config: the strength of each change; see AugmentConfig.
        ignore_index: label of ignored pixels.
        border: border in pixels on each side from which a warp takes pixels, cut off afterwards; see
            AugmentConfig.border.

    Raises:
        ConfigError: a user-defined transform can't be built.
    """

    def __init__(self, config: AugmentConfig, ignore_index: int, border: int = 0) -> None:
        super().__init__()
        self.config = config
        self.border = border
        self.ignore_index = ignore_index
        self._transforms = [_instantiate(options) for options in config.transforms]

    def forward(
        self, image: Tensor, labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augment a batch of square windows.

        Args:
            image: (N, bands, side, side) float, 0 where invalid; windows with their border.
            labels: (N, side, side) integer.
            valid: (N, side, side) bool.
            generator: on the image's device; determines all draws, including those of transforms that use
                torch's global generator.

        Returns:
            Augmented image, labels and valid, without the border.
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
        n, side = len(image), image.shape[-1] - 2 * self.border
        angle = _uniform(n, math.radians(self.config.rotate), generator)
        shear = _uniform(n, math.radians(self.config.shear), generator)
        low, high = (math.log(scale) for scale in self.config.scale_range())
        log_scale = (low + high) / 2 + _uniform(n, (high - low) / 2, generator)
        warp = torch.stack((angle, shear, log_scale))
        theta = _affine(warp * self._strength(warp, valid, side), side / image.shape[-1])
        grid = F.affine_grid(theta, [n, 1, side, side], align_corners=False)
        weight = F.grid_sample(valid.unsqueeze(1).float(), grid, align_corners=False)  # (N, 1, side, side)
        warped = F.grid_sample(image, grid, align_corners=False) / weight.clamp_min(1e-6)
        warped_labels = F.grid_sample(self._encode_labels(labels), grid, mode="nearest", align_corners=False)
        warped_valid = weight.squeeze(1) > 0.5
        return warped, self._decode_labels(warped_labels, warped_valid, labels.dtype), warped_valid

    def _strength(self, warp: Tensor, valid: Tensor, side: int) -> Tensor:
        """Return the factor (N,) of each warp (3, N), at most 1, with which a window keeps MIN_KEPT.

        Estimated on a coarse grid; no sample is picked out, so a GPU doesn't wait.
        """
        n, frame = len(valid), valid.shape[-1]
        inner = valid[:, self.border : frame - self.border, self.border : frame - self.border]
        required = MIN_KEPT * inner.float().mean((1, 2)) + _ESTIMATE_ERROR
        shape, valid_float = (
            [n, 1, min(side, _COARSE_SIDE), min(side, _COARSE_SIDE)],
            valid.unsqueeze(1).float(),
        )
        factor = torch.zeros_like(required)
        for strength in _STRENGTHS:
            grid = F.affine_grid(_affine(warp * strength, side / frame), shape, align_corners=False)
            kept = F.grid_sample(valid_float, grid, align_corners=False) > 0.5
            factor = torch.where(kept.float().mean((1, 2, 3)) >= required, strength, factor)
        return factor

    def _encode_labels(self, labels: Tensor) -> Tensor:
        """Return labels as (N, 1, S, S) float, shifted so that 0, the fill value of warps, is ignored."""
        return labels.unsqueeze(1).float() - self.ignore_index

    def _decode_labels(self, shifted: Tensor, valid: Tensor, dtype: torch.dtype) -> Tensor:
        labels = (shifted.squeeze(1) + self.ignore_index).round().to(dtype)
        return torch.where(valid, labels, self.ignore_index)

    def _user_transforms(
        self, image: Tensor, labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        shifted, validity = self._encode_labels(labels), valid.unsqueeze(1).float()
        devices = [image.device] if image.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(generator.initial_seed())
            for transform in self._transforms:
                image, shifted, validity = _apply_transform(transform, image, shifted, validity)
        valid = validity.squeeze(1) > 0.5
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


def _affine(warp: Tensor, zoom: float) -> Tensor:
    """Return matrices (N, 2, 3) of affine_grid for angles, shears and logarithms of scales (3, N)."""
    angle, shear, log_scale = warp
    lean, size = torch.tan(shear), zoom * torch.exp(-log_scale)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    zero = torch.zeros_like(cos)
    return torch.stack((cos, cos * lean - sin, zero, sin, sin * lean + cos, zero), 1).view(-1, 2, 3)


def _instantiate(options: Mapping[str, Any]) -> UserTransform:
    try:
        return instantiate(options)
    except InstantiationException as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"augment.transforms: {options.get('_target_')}: {reason}") from error


def _apply_transform(
    transform: UserTransform, image: Tensor, labels: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply a user-defined transform: one of torchvision sample by sample, any other to the batch."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import Transform

    if not isinstance(transform, Transform):
        return transform(image, labels, valid)
    samples = [
        transform(tv_tensors.Image(i), tv_tensors.Mask(y), tv_tensors.Mask(v))
        for i, y, v in zip(image, labels, valid, strict=True)
    ]
    images, masks, validity = (
        torch.stack([part.as_subclass(Tensor) for part in parts]) for parts in zip(*samples, strict=True)
    )
    return images, masks, validity


def _gamma_curve(image: Tensor, exponent: Tensor) -> Tensor:
    """Apply a power curve through the ends of the span; values below it follow the mirrored curve."""
    position = (image + _GAMMA_SPAN).div_(2 * _GAMMA_SPAN)
    curved = position.abs().clamp_min_(1e-6).log_().mul_(exponent).exp_()
    return torch.copysign(curved, position, out=curved).mul_(2 * _GAMMA_SPAN).sub_(_GAMMA_SPAN)


def _uniform(shape: int | tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    size = (shape,) if isinstance(shape, int) else shape
    return (torch.rand(size, generator=generator, device=generator.device) * 2 - 1) * bound


def _d4(tensor: Tensor, turn: Tensor) -> Tensor:
    """Apply one of the 8 flips and quarter turns per sample; without indexing, so that a GPU never syncs."""
    turn = turn.view(-1, *[1] * (tensor.dim() - 1))
    tensor = torch.where((turn & 1).bool(), tensor.transpose(-1, -2), tensor)
    tensor = torch.where((turn & 2).bool(), tensor.flip(-1), tensor)
    return torch.where((turn & 4).bool(), tensor.flip(-2), tensor)
