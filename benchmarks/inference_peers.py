"""Public ways to map a large raster, each as its documentation has it, for benchmarks/inference.py.

Each function gets a checkpoint and imports, loads and returns all that isn't measured: a function of a raster
and of a folder for the map. Those that can't be imported are left out; the libraries bring much along, so:
pip install monai terratorch geoai-py geo-inference
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

CLASSES = 6
_SIDE, _STRIDE, _MARGIN = 512, 384, 32

Mapping = Callable[[str, str], None]


def monai(found: Any) -> Mapping:
    """MONAI's sliding window over the whole image in memory, a quarter of each window shared."""
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer((_SIDE, _SIDE), 1, 1 - _STRIDE / _SIDE, mode="gaussian")
    return _whole(found, lambda image: inferer(image, found.model))


def terratorch(found: Any) -> Mapping:
    """TerraTorch's tiled inference over the whole image in memory, with the same windows."""
    from terratorch.tasks.tiled_inference import tiled_inference

    def predict(image: torch.Tensor) -> torch.Tensor:
        return tiled_inference(
            found.model, image, CLASSES, crop=_SIDE, stride=_STRIDE, delta=_MARGIN, batch_size=1
        )

    return _whole(found, predict)


def geoai(found: Any) -> Mapping:
    """Return the tiled inference of geoai: the same windows, its own blending, a sum of logits in memory."""
    from geoai import utils  # noqa: F401 - else imported while it is measured, as is tqdm
    from geoai.inference import predict_geotiff
    from tqdm import auto  # noqa: F401

    valid = torch.ones(1, _SIDE, _SIDE, dtype=torch.bool)

    def normalize(chip: NDArray[np.float32]) -> NDArray[np.float32]:
        return found.normalize(torch.from_numpy(chip)[None], valid)[0].numpy()

    def run(raster: str, folder: str) -> None:
        predict_geotiff(
            found.model, raster, f"{folder}/map.tif", _SIDE, _SIDE - _STRIDE, 1, num_classes=CLASSES,
            output_dtype="uint8", output_nodata=255, preprocess_fn=normalize,
            postprocess_fn=lambda scores: scores.argmax(0), device="cpu", verbose=False,
        )  # fmt: skip

    return run


def geo_inference(found: Any) -> Mapping:
    """Chunks of dask by geo-inference; it takes TorchScript and always shares half of each window."""
    from dask import distributed  # noqa: F401 - else imported while it is measured
    from geo_inference.geo_inference import GeoInference

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sides become constants: all windows are of one size
        file = f"{folder}/model.pt"
        torch.jit.trace(found.model.inside, torch.zeros(1, len(found.metadata.mean), _SIDE, _SIDE)).save(file)
        engine = GeoInference(model=file, work_dir=folder, device="cpu", num_classes=CLASSES)
    found.model.inside = engine.model  # timed as that of the others
    engine.model = lambda image: found.model(
        found.normalize(image, torch.ones(image[:, 0].shape, dtype=torch.bool))
    )

    def run(raster: str, folder: str) -> None:
        engine.work_dir = Path(folder)
        engine(raster, patch_size=_SIDE, workers=torch.get_num_threads())

    return run


def grid_loop(found: Any) -> Mapping:
    """Return the loop that TorchGeo's grid sampler leads to: whole chips, a sum of logits in memory."""
    valid = torch.ones(1, _SIDE, _SIDE, dtype=torch.bool)

    def run(raster: str, folder: str) -> None:
        with rasterio.open(raster) as source, torch.inference_mode():
            height, width, profile = source.height, source.width, source.profile
            total = torch.zeros(CLASSES, height, width)
            for row in [*range(0, height - _SIDE, _STRIDE), height - _SIDE]:
                for col in [*range(0, width - _SIDE, _STRIDE), width - _SIDE]:
                    chip = source.read(window=rasterio.windows.Window(col, row, _SIDE, _SIDE))
                    image = found.normalize(torch.from_numpy(chip.astype(np.float32))[None], valid)
                    total[:, row : row + _SIDE, col : col + _SIDE] += found.model(image)[0]
            classes = total.argmax(0).to(torch.uint8).numpy()
        _write(folder, profile, classes)

    return run


def _whole(found: Any, predict: Callable[[torch.Tensor], torch.Tensor]) -> Mapping:
    def run(raster: str, folder: str) -> None:
        with rasterio.open(raster) as source:
            image, profile = torch.from_numpy(source.read().astype(np.float32))[None], source.profile
        image = found.normalize(image, torch.ones(image[:, 0].shape, dtype=torch.bool))
        with torch.inference_mode():
            classes = predict(image)[0].argmax(0).to(torch.uint8).numpy()
        _write(folder, profile, classes)

    return run


def _write(folder: str, profile: Any, classes: NDArray[np.uint8]) -> None:
    profile.update(count=1, dtype="uint8", nodata=255)
    with rasterio.open(f"{folder}/map.tif", "w", **profile) as target:
        target.write(classes[None])


PEERS: dict[str, Callable[[Any], Mapping]] = {
    "monai": monai,
    "terratorch": terratorch,
    "geoai": geoai,
    "geo-inference": geo_inference,
    "grid loop": grid_loop,
}
LARGEST = {"terratorch": 6000, "geoai": 6000}
"""The side above which they need more memory than the machine has."""
