"""Sliding-window prediction of rasters, blended in a rolling buffer of rows."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.errors import ConfigError, first_line
from geo_seg.prediction.decode import BlendedRows, decode_rows
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.prediction.openvino_backend import OpenVINOModel
from geo_seg.prediction.resample import ResolutionScale
from geo_seg.prediction.row_buffer import RowBuffer
from geo_seg.prediction.tta import VIEWS, decode_probabilities
from geo_seg.prediction.window_reader import Batch, RasterInput, crop_inner, read_batches
from geo_seg.tiling import Grid, Tile, Window

Tally = Counter[str]
"""Pixels of a part of a map that are unexpectedly nodata, by reason."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions of a model's forward pass; softmax and blending are always float32."""

_BLEND_ROWS = 32  # rows of a window that are blended at once on a CPU


@dataclass(frozen=True)
class PredictOptions:
    """Options of a prediction.

    Attributes:
        precision: one of PRECISIONS.
        batch_size: windows per batch.
    """

    precision: str
    batch_size: int


class Predictor:
    """Ensemble that predicts rasters window by window.

    Args:
        ensemble: the models with weights, temperatures and threshold.
        device: device of the models.
        compile: whether to compile the models by torch.compile.
        tta: test-time augmentation, a key of VIEWS.
        backend: "torch" or "openvino".

    Raises:
        ConfigError: the backend can't run the models on this device.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        device: torch.device,
        compile: bool = False,
        tta: str = "none",
        backend: str = "torch",
    ) -> None:
        self.task = ensemble.first.task
        self.device = device
        self.bands = ensemble.first.in_channels
        # torch's stubs know no memory_format in Module.to
        self.models = [
            checkpoint.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for checkpoint in ensemble.checkpoints
        ]
        self._compiled = compile
        self._forward = [torch.compile(model) if compile else model for model in self.models]
        if backend == "openvino":
            if device.type != "cpu":
                raise ConfigError(f"backend=openvino: runs on the CPU, not on {device.type}; accelerator=cpu")
            self._forward = [OpenVINOModel(model, self.bands) for model in self.models]
        self._normalize = [checkpoint.normalize.to(device) for checkpoint in ensemble.checkpoints]
        self._ensemble = ensemble
        self._views = VIEWS[tta]

    @property
    def n_passes(self) -> int:
        """Forward passes per window: models times views."""
        return len(self.models) * len(self._views)

    def predict_rows(
        self,
        source: RasterInput,
        grid: Grid,
        options: PredictOptions,
        advance: Callable[[int], object],
        tally: Tally | None = None,
    ) -> Iterator[BlendedRows]:
        """Predict the output rows of a part of a raster from the top down.

        Memory is proportional to its width times the window; the result doesn't depend on other parts.

        Args:
            source: the raster.
            grid: the windows of the part.
            options: precision and batch size.
            advance: called after each batch with its number of windows.
            tally: see rows.

        Yields:
            Consecutive finished rows.

        Raises:
            DataError: the raster can't be read.
        """
        for sums, valid in self.rows(source, grid, options.precision, options.batch_size, advance, tally):
            yield self._decode_rows(sums, valid)

    def rows(
        self,
        source: RasterInput,
        grid: Grid,
        precision: str,
        batch_size: int,
        advance: Callable[[int], object] = lambda _: None,
        tally: Tally | None = None,
    ) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
        """Predict the probabilities of a part of a raster from the top down.

        Args:
            source: the raster.
            grid: the windows of the part.
            precision: one of PRECISIONS.
            batch_size: windows per batch.
            advance: called after each batch with its number of windows.
            tally: counts "strays" (see Validity) and "undecided" pixels, whose probabilities are not finite.

        Yields:
            probabilities: (classes, rows, width) on the device, blended; a view, valid until the next item.
            valid: (rows, width), False for nodata, undecided pixels, and outside the areas of the source.

        Raises:
            DataError: the raster can't be read.
        """
        tally = Counter() if tally is None else tally
        buffer = RowBuffer(grid, self.task.num_classes, self.device)
        weights = [
            [torch.from_numpy(axis.weights(i)).to(self.device) for i in range(len(axis))]
            for axis in (grid.rows, grid.cols)
        ]
        for batch in read_batches(source, grid, batch_size):
            tally["strays"] += batch.strays
            predictions = self._predict(batch, precision, source.scale)
            for tile, slot in zip(batch.tiles, batch.slots, strict=True):
                if slot is not None:
                    valid = crop_inner(tile, batch.valid[slot])
                    self._accumulate(
                        buffer, tile, predictions[slot], weights[0][tile.row], weights[1][tile.col], valid
                    )
                if tile.col == len(grid.cols) - 1:
                    for sums, valid in buffer.pop_rows(grid.rows.final_before(tile.row)):
                        finite = valid & torch.isfinite(sums).all(dim=0).cpu().numpy()
                        tally["undecided"] += int(np.count_nonzero(valid & ~finite))
                        yield sums, finite
            advance(len(batch.tiles))

    @torch.inference_mode()
    def logits(self, pixels: Tensor, member: int, precision: str) -> Tensor:
        """Run one model on a batch of windows.

        Args:
            pixels: (N, bands, height, width) normalized, on the device.
            member: index of the model.
            precision: one of PRECISIONS.

        Returns:
            (N, channels, height, width) in that precision.

        Raises:
            ConfigError: the model can't be compiled here.
        """
        with torch.autocast(self.device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            try:
                logits: Tensor = self._forward[member](pixels.contiguous(memory_format=torch.channels_last))
            except RuntimeError as error:
                if not self._compiled:
                    raise
                raise ConfigError(
                    f"compile=true: torch can't compile this model on this machine ({first_line(error)}); "
                    "leave it out"
                ) from error
        return logits

    @torch.inference_mode()
    def predict_windows(self, image: NDArray[Any], valid: NDArray[np.bool_], precision: str) -> NDArray[Any]:
        """Return the class ids (N, height, width) of whole windows; the arguments are as in Batch."""
        parts = (self._probabilities(logits) * w for w, logits in self._passes(image, valid, precision))
        total = next(parts)
        for part in parts:
            total.add_(part)
        ids, _ = decode_probabilities(total.transpose(0, 1), self.task.binary, self._ensemble.threshold)
        return ids.cpu().numpy()

    def _passes(
        self, image: NDArray[Any], valid: NDArray[np.bool_], precision: str
    ) -> Iterator[tuple[float, Tensor]]:
        """Yield the weighted logits of each model in each view.

        Args:
            image: (N, bands, height, width) raw band values.
            valid: (N, height, width).
            precision: one of PRECISIONS.

        Yields:
            Weight (they sum to 1) and temperature-scaled logits (N, channels, height, width), view undone.
        """
        cuda = self.device.type == "cuda"
        pixels, mask = torch.from_numpy(image), torch.from_numpy(valid)
        if cuda:
            pixels, mask = pixels.pin_memory(), mask.pin_memory()
        pixels = pixels.to(self.device, non_blocking=cuda)
        mask = mask.to(self.device, non_blocking=cuda)
        for member, temperature in enumerate(self._ensemble.temperatures):
            normalized = self._normalize[member](pixels, mask)
            for view in self._views:
                logits = view.invert(self.logits(view.apply(normalized), member, precision))
                weight = self._ensemble.weights[member] / len(self._views)
                yield weight, logits if temperature == 1 else logits.float() / temperature

    @torch.inference_mode()
    def _accumulate(
        self,
        buffer: RowBuffer,
        tile: Tile,
        prediction: Tensor,
        row_weights: Tensor,
        col_weights: Tensor,
        valid: NDArray[np.bool_],
    ) -> None:
        """Add a window to the buffer, on a CPU in chunks of rows that stay in its caches.

        Args:
            buffer: buffer of the part.
            tile: the window.
            prediction: output of _predict for this window.
            row_weights: (height,) blend weights of its inner rows.
            col_weights: (width,) blend weights of its inner columns.
            valid: (height, width) validity of its inner pixels.
        """
        row, col, height, width = tile.inner
        step = _BLEND_ROWS if self.device.type == "cpu" else height
        for begin in range(0, height, step):
            rows = slice(begin, min(begin + step, height))
            probabilities = (
                self._probabilities(prediction[None, :, rows])[0]
                if self.n_passes == 1
                else prediction[:, rows]
            )
            inner = Window(row + begin, col, rows.stop - begin, width)
            buffer.add(inner, probabilities, row_weights[rows, None] * col_weights, valid[rows])

    @torch.inference_mode()
    def _predict(self, batch: Batch, precision: str, scale: ResolutionScale) -> list[Tensor]:
        """Predict the inner pixels of each window of a batch that has valid pixels.

        Returns:
            Per window the logits (channels, height, width) of a single pass, or the mean probabilities
            (classes, height, width) of several passes.
        """
        if not len(batch.image):
            return []
        predicted_tiles = [
            tile for tile, slot in zip(batch.tiles, batch.slots, strict=True) if slot is not None
        ]
        totals: list[Tensor] = []
        for weight, model_logits in self._passes(batch.image, batch.seen, precision):
            logits = scale.inverse(model_logits, *batch.valid.shape[1:])
            for i, tile in enumerate(predicted_tiles):
                inner = crop_inner(tile, logits[i : i + 1])
                if self.n_passes == 1:
                    totals.append(inner[0])
                elif len(totals) <= i:
                    totals.append(self._probabilities(inner)[0] * weight)
                else:
                    totals[i].add_(self._probabilities(inner)[0], alpha=weight)
        return totals

    def _probabilities(self, logits: Tensor) -> Tensor:
        # several times faster on a CPU than softmax over channels_last or bfloat16
        return self.task.probabilities(logits.to(torch.float32, memory_format=torch.contiguous_format))

    def decode(self, probabilities: Tensor) -> Tensor:
        """Return the class ids (rows, width) of probabilities (classes, rows, width), as in maps."""
        return decode_probabilities(probabilities, self.task.binary, self._ensemble.threshold)[0]

    @torch.inference_mode()
    def _decode_rows(self, sums: Tensor, valid: NDArray[np.bool_]) -> BlendedRows:
        return decode_rows(sums, valid, self.task.binary, self._ensemble.threshold)
