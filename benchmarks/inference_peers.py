"""Public ways to map a large raster, each as its documentation has it, for benchmarks/inference.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

CLASSES = 6
_SIDE, _STRIDE, _MARGIN = 512, 384, 32


def monai(found: Any, raster: str, output: str, **_: Any) -> None:
    """MONAI's sliding window over the whole image in memory, a quarter of each window shared."""
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer((_SIDE, _SIDE), 1, 1 - _STRIDE / _SIDE, mode="gaussian")
    _whole(found, raster, output, lambda image: inferer(image, found.model))


def terratorch(found: Any, raster: str, output: str, **_: Any) -> None:
    """TerraTorch's tiled inference over the whole image in memory, with the same windows."""
    from terratorch.tasks.tiled_inference import tiled_inference

    def predict(image: torch.Tensor) -> torch.Tensor:
        return tiled_inference(
            found.model, image, CLASSES, crop=_SIDE, stride=_STRIDE, delta=_MARGIN, batch_size=1
        )

    _whole(found, raster, output, predict)


def grid_loop(found: Any, raster: str, output: str, **_: Any) -> None:
    """The loop that TorchGeo's grid sampler leads to: whole chips, a sum of logits in memory."""
    valid = torch.ones(1, _SIDE, _SIDE, dtype=torch.bool)
    with rasterio.open(raster) as source, torch.inference_mode():
        height, width, profile = source.height, source.width, source.profile
        total = torch.zeros(CLASSES, height, width)
        for row in [*range(0, height - _SIDE, _STRIDE), height - _SIDE]:
            for col in [*range(0, width - _SIDE, _STRIDE), width - _SIDE]:
                chip = source.read(window=rasterio.windows.Window(col, row, _SIDE, _SIDE)).astype(np.float32)
                image = found.normalize(torch.from_numpy(chip)[None], valid)
                total[:, row : row + _SIDE, col : col + _SIDE] += found.model(image)[0]
        classes = total.argmax(0).to(torch.uint8).numpy()
    _write(output, profile, classes)


def _whole(found: Any, raster: str, output: str, predict: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with rasterio.open(raster) as source:
        image, profile = torch.from_numpy(source.read().astype(np.float32))[None], source.profile
    image = found.normalize(image, torch.ones(image[:, 0].shape, dtype=torch.bool))
    with torch.inference_mode():
        classes = predict(image)[0].argmax(0).to(torch.uint8).numpy()
    _write(output, profile, classes)


def _write(output: str, profile: Any, classes: NDArray[np.uint8]) -> None:
    profile.update(count=1, dtype="uint8", nodata=255)
    with rasterio.open(f"{output}.tif", "w", **profile) as target:
        target.write(classes[None])


PEERS = {"monai": monai, "terratorch": terratorch, "grid loop": grid_loop}
LIBRARIES = {
    "monai": ["monai.inferers"],
    "terratorch": ["terratorch.tasks.tiled_inference"],
    "grid loop": ["rasterio"],
}
"""What each imports; libraries are not counted."""
