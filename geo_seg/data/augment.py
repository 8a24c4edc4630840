"""Augmentation on the device, in batch: image, labels and validity together, any number of bands."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geo_seg.config import AugmentConfig


class Augment(nn.Module):
    """Random changes to standardised windows, drawn per sample.

    A pixel that isn't valid never mixes into its neighbours; what turns in from outside the frame is not
    valid and has the label ignore_index.

    Args:
        config: the strength of each change; see AugmentConfig.
        ignore_index: label of pixels that don't count.
    """

    def __init__(self, config: AugmentConfig, ignore_index: int) -> None:
        super().__init__()
        self.config = config
        self.ignore_index = ignore_index

    def forward(
        self, image: Tensor, labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augments a batch of square windows.

        Args:
            image: (N, bands, S, S) float, 0 where not valid.
            labels: (N, S, S) integer.
            valid: (N, S, S) bool.
            generator: on the image's device; decides all draws.

        Returns:
            The three of them, changed, with the same shapes.
        """
        c = self.config
        if c.d4:
            turn = torch.randint(8, (len(image),), generator=generator, device=image.device)
            image, labels, valid = (_d4(tensor, turn) for tensor in (image, labels, valid))
        if c.rotate or c.scale or c.shear:
            image, labels, valid = self._warp(image, labels, valid, generator)
        image = self._radiometry(image, generator)
        return torch.where(valid.unsqueeze(1), image, 0.0), labels, valid

    def _warp(
        self, image: Tensor, labels: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(image)
        angle = _uniform(n, math.radians(self.config.rotate), generator)
        shear = torch.tan(_uniform(n, math.radians(self.config.shear), generator))
        zoom = torch.exp(_uniform(n, math.log1p(self.config.scale), generator))
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        zero = torch.zeros_like(cos)
        theta = torch.stack((cos, cos * shear - sin, zero, sin, sin * shear + cos, zero), 1).view(n, 2, 3)
        grid = F.affine_grid(theta, [n, 1, *image.shape[2:]], align_corners=False)
        weight = F.grid_sample(valid.unsqueeze(1).float(), grid, align_corners=False)  # (N, 1, S, S)
        warped = F.grid_sample(image, grid, align_corners=False) / weight.clamp_min(1e-6)
        shifted = (labels - self.ignore_index).unsqueeze(1).float()  # 0 stands for ignore_index
        turned = F.grid_sample(shifted, grid, mode="nearest", align_corners=False).squeeze(1)
        kept = weight.squeeze(1) > 0.5
        labels = torch.where(kept, turned.round().to(labels.dtype) + self.ignore_index, self.ignore_index)
        return warped, labels, kept

    def _radiometry(self, image: Tensor, generator: torch.Generator) -> Tensor:
        c, shape = self.config, (*image.shape[:2], 1, 1)
        if c.gain:
            image = image * (1 + _uniform(shape, c.gain, generator))
        if c.bias:
            image = image + _uniform(shape, c.bias, generator)
        if c.noise:
            noise = torch.randn(image.shape, generator=generator, device=image.device)
            image = image + c.noise * noise
        if c.band_drop:
            draw = torch.rand(shape, generator=generator, device=image.device)
            keep = (draw >= c.band_drop) | (draw == draw.amax(1, keepdim=True))  # one band always stays
            image = image * keep
        return image


def _uniform(shape: int | tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    size = (shape,) if isinstance(shape, int) else shape
    return (torch.rand(size, generator=generator, device=generator.device) * 2 - 1) * bound


def _d4(tensor: Tensor, turn: Tensor) -> Tensor:
    result = torch.empty_like(tensor)
    for k in range(8):
        chosen = turn == k
        part = torch.rot90(tensor[chosen], k % 4, (-2, -1))
        result[chosen] = part.flip(-1) if k >= 4 else part
    return result
