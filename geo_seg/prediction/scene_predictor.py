"""Scenes of a data set, predicted as maps are: the one way in which scores, pictures and maps are made."""

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
    """A trained model that predicts labelled scenes with the windows, seams and precision of inference.

    Args:
        checkpoint: the model; its temperature and threshold decide the classes.
        config: the data set; says what is nodata, and what becomes of windows that can't be read.
        device: where the model runs.
        precision: what it computes in, as in inference: "fp32", "bf16", "fp16" or "auto".
        say: prints what was measured.
        sharers: processes of this run that share the machine's memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: DatasetConfig,
        device: torch.device,
        precision: str,
        say: Callable[[str], None],
        sharers: int = 1,
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self._config = config
        self._predictor = Predictor(make_ensemble([checkpoint]), device)
        options = InferenceConfig(checkpoint="", input="", output="", precision=precision)
        self._chooser = Planner(options, self._predictor, checkpoint.window, say, sharers)

    def rows(
        self, scene: Scene, areas: Sequence[Window]
    ) -> Iterator[tuple[Window, Tensor, NDArray[np.bool_]]]:
        """Predict areas of a scene from the top down; memory follows the scene's width.

        Args:
            scene: whose image is predicted.
            areas: what is wanted of it; () for all of it.

        Yields:
            window: rows of the scene, between the edges of a part of it.
            probabilities: (classes, rows, width) after the temperature; to be used before the next are asked
                for.
            valid: (rows, width), False for nodata and where nothing was predicted.

        Raises:
            DataError: the image can't be read, and dataset.on_read_error is "raise".
        """
        source = self._source(scene, areas)
        chosen = self._chooser.plan(source)
        for part in split_into_parts(source, chosen):
            if not source.wants(part.area):
                continue
            top = part.area.row
            for probabilities, valid in self._predictor.rows(
                source, part, chosen.precision, chosen.batch_size
            ):
                yield Window(top, part.area.col, *valid.shape), probabilities, valid
                top += len(valid)

    def decode(self, probabilities: Tensor) -> Tensor:
        """Return the class ids (rows, width) of probabilities (classes, rows, width), as in maps."""
        return self._predictor.decode(probabilities)

    def classes(self, scene: Scene, window: Window) -> NDArray[np.int64]:
        """Return the class ids (height, width) of a window of a scene, 0 where there is nothing to predict.

        They are those that all of the scene gets: the windows that the model sees lie alike.
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
        """Return how a scene is predicted: windows, seams, precision, and the device."""
        return {**asdict(self._chooser.plan(self._source(scene))), "device": self.device.type}

    def _source(self, scene: Scene, areas: Sequence[Window] = ()) -> RasterInput:
        """Return what to read of a scene."""
        config = self._config
        return RasterInput(
            scene.image,
            scene.bands,
            config.nodata,
            config.zero_is_nodata,
            areas=tuple(areas),
            skip_unreadable=config.on_read_error == "ignore",
        )
