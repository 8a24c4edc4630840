"""Layers around a network: normalization of the input, padding to a multiple of the output stride."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geo_seg.models.protocol import Model
from geo_seg.tiling import OUTPUT_STRIDE


class Normalize(nn.Module):
    """Layer that standardizes raw band values, on the device and in batch.

    Args:
        mean: per band, in the raster's units.
        std: per band, in the raster's units, above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Standardize valid pixels and set all others to 0.

        Args:
            image: (N, bands, H, W) of any real dtype.
            valid: (N, H, W) bool.

        Returns:
            (N, bands, H, W) float32: (image - mean) / std, and 0 at pixels that are not valid.
        """
        scaled = image.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)  # fresh memory costs more
        return scaled.masked_fill_(~valid.unsqueeze(1), 0.0)


class PadToStride(nn.Module):
    """Network for any height and width: pads to a multiple of OUTPUT_STRIDE, and crops the logits.

    Args:
        net: from (N, bands, H, W) to (N, channels, H, W), for sides that are multiples of OUTPUT_STRIDE.
        min_size: smallest side in pixels that `net` takes.
        origin: note for the user on where the weights come from; "" for none.
    """

    def __init__(self, net: nn.Module, min_size: int = OUTPUT_STRIDE, origin: str = "") -> None:
        super().__init__()
        self.net = net
        self.min_size = min_size
        self.origin = origin

    @property
    def encoder(self) -> nn.Module | None:
        """The encoder of `net`; None if it has none."""
        encoder = getattr(self.net, "encoder", None)
        return encoder if isinstance(encoder, nn.Module) else None

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Args:
            image: (N, bands, H, W) float.

        Returns:
            (N, channels, H, W) logits.
        """
        height, width = image.shape[-2:]
        below = max(-height % OUTPUT_STRIDE, self.min_size - height)
        right = max(-width % OUTPUT_STRIDE, self.min_size - width)
        if below or right:
            image = F.pad(image, (0, right, 0, below), mode="replicate")
        logits: Tensor = self.net(image)
        return logits[..., :height, :width]


def count_trainable_parameters(model: nn.Module | Model) -> int:
    """Return the number of weights that are trained."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
