"""Prediction of the scenes of a data set, with the same code as maps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.inference import InferenceConfig
from geo_seg.data.scenes.scene import Scene
from geo_seg.prediction.ensemble import make_ensemble
from geo_seg.prediction.planner import Planner, split_into_parts
from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.tiling import Window


class ScenePredictor:
    """Trained model that predicts labelled scenes with the windows, blending and precision of inference.

    Args:
        checkpoint: the model with its temperature and threshold.
        config: the data set: nodata, and what to do about unreadable windows.
        device: device of the model.
        precision: as in inference: "fp32", "bf16", "fp16" or "auto".
        notify: prints a line about what was measured.
        processes: number of processes of this run that share the memory of the machine.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: DatasetConfig,
        device: torch.device,
        precision: str,
        notify: Callable[[str], None],
        processes: int = 1,
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self._config = config
        self._predictor = Predictor(make_ensemble([checkpoint]), device)
        options = InferenceConfig(checkpoint="", input="", output="", precision=precision)
        self._planner = Planner(options, self._predictor, checkpoint.window, notify, processes)

    def rows(
        self, scene: Scene, areas: Sequence[Window]
    ) -> Iterator[tuple[Window, Tensor, NDArray[np.bool_]]]:
        """Predict areas of a scene from the top down; memory follows the scene's width.

        Args:
            scene: the scene whose image is predicted.
            areas: rectangles to predict; () for the whole scene.

        Yields:
            window: rectangle of the rows, as wide as a part of the scene.
            probabilities: (classes, rows, width), temperature-scaled; a view that is valid until the next
                item.
            valid: (rows, width), False for nodata and where nothing was predicted.

        Raises:
            DataError: the image can't be read, and dataset.on_read_error is "raise".
        """
        source = self._source(scene, areas)
        plan = self._planner.plan(source)
        for part in split_into_parts(source, plan):
            if not source.wants(part.area):
                continue
            top = part.area.row
            for probabilities, valid in self._predictor.rows(source, part, plan.precision, plan.batch_size):
                yield Window(top, part.area.col, *valid.shape), probabilities, valid
                top += len(valid)

    def decode(self, probabilities: Tensor) -> Tensor:
        """Return the class ids (rows, width) of probabilities (classes, rows, width), as in maps."""
        return self._predictor.decode(probabilities)

    def classes(self, scene: Scene, window: Window) -> NDArray[np.int64]:
        """Return the class ids (height, width) of a window of a scene, 0 for nodata.

        They equal those of the whole scene, as the windows of the model lie in the same places.
        """
        predicted: NDArray[np.int64] = np.zeros((window.height, window.width), np.int64)
        for (row, col, height, width), probabilities, _ in self.rows(scene, [window]):
            top, bottom = max(row, window.row), min(row + height, window.row + window.height)
            left, right = max(col, window.col), min(col + width, window.col + window.width)
            if top < bottom and left < right:
                ids = self.decode(probabilities).cpu().numpy()
                predicted[top - window.row : bottom - window.row, left - window.col : right - window.col] = (
                    ids[top - row : bottom - row, left - col : right - col]
                )
        return predicted

    def description(self, scene: Scene) -> dict[str, Any]:
        """Return the plan of a scene (window, margin, overlap, precision, ...) and the device."""
        return {**asdict(self._planner.plan(self._source(scene))), "device": self.device.type}

    def _source(self, scene: Scene, areas: Sequence[Window] = ()) -> RasterInput:
        """Return the raster input of a scene."""
        config = self._config
        return RasterInput(
            scene.image,
            scene.bands,
            config.nodata,
            config.zero_is_nodata,
            areas=tuple(areas),
            skip_unreadable=config.on_read_error == "ignore",
        )
