"""From a raster to rows of classes: windows through the model, blended in a rolling band of rows."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.errors import ConfigError, first_line
from geo_seg.prediction.decode import OutputOptions, OutputRows, decode_rows
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.prediction.openvino_backend import OpenVINOModel
from geo_seg.prediction.resample import ResolutionScale
from geo_seg.prediction.row_buffer import RowBuffer
from geo_seg.prediction.tta import VIEWS, decode_probabilities
from geo_seg.prediction.window_reader import Batch, RasterInput, crop_inner, read_batches
from geo_seg.tiling import Grid, Tile, Window

Tally = Counter[str]
"""Pixels of a part of a map that are nodata, by reasons that the user should know of."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What a model may compute in; softmax and blending are always done in float32."""

_ROWS = 32  # of a window that are blended at once on a CPU


@dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Attributes:
        precision: name of what the model computes in, where that is safe.
        batch_size: windows that it sees at once.
        shown: what is written beside the classes.
    """

    precision: str
    batch_size: int
    shown: OutputOptions


class Predictor:
    """A model, or several, that map rasters.

    Args:
        ensemble: the models and what they need to know.
        device: where they run.
        compiled: whether torch.compile makes them faster first.
        tta: in which views they see each window, one of VIEWS.
        backend: what runs the models, "torch" or "openvino".

    Raises:
        ConfigError: the backend can't run them there.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        device: torch.device,
        compiled: bool = False,
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
        self._compiled = compiled
        self._run = [torch.compile(model) if compiled else model for model in self.models]
        if backend == "openvino":
            if device.type != "cpu":
                raise ConfigError(f"backend=openvino: runs on the CPU, not on {device.type}; accelerator=cpu")
            self._run = [OpenVINOModel(model, self.bands) for model in self.models]
        self._normalize = [checkpoint.normalize.to(device) for checkpoint in ensemble.checkpoints]
        self._ensemble = ensemble
        self._views = VIEWS[tta]

    @property
    def n_passes(self) -> int:
        """How often a window is predicted: models times views."""
        return len(self.models) * len(self._views)

    def predict_rows(
        self,
        source: RasterInput,
        grid: Grid,
        settings: PredictOptions,
        advance: Callable[[int], object],
        tally: Tally | None = None,
    ) -> Iterator[OutputRows]:
        """Map a part of a raster from the top down; memory follows its width times the window.

        The same part gives the same bytes wherever and whenever it is made.

        Args:
            source: the raster.
            grid: the windows of the part.
            settings: how to predict.
            advance: told the number of windows that are done after each batch.
            tally: see rows.

        Yields:
            Finished rows, without gaps.

        Raises:
            DataError: the raster can't be read.
        """
        for sums, valid in self.rows(source, grid, settings.precision, settings.batch_size, advance, tally):
            yield self._decide(sums, valid, settings.shown)

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
            batch_size: windows that a model sees at once.
            advance: told the number of windows that are done after each batch.
            tally: gets the number of "strays" (see Validity) and of "undecided" pixels, of which a model says
                NaN or infinity.

        Yields:
            probabilities: (classes, rows, width) on the device, blended, after the temperature; to be used
                before the next are asked for.
            valid: (rows, width), False for nodata, undecided pixels, and where no area of the source was
                asked for.

        Raises:
            DataError: the raster can't be read.
        """
        tally = Counter() if tally is None else tally
        band = RowBuffer(grid, self.task.num_classes, self.device)
        weights = [
            [torch.from_numpy(axis.weights(i)).to(self.device) for i in range(len(axis))]
            for axis in (grid.rows, grid.cols)
        ]
        for batch in read_batches(source, grid, batch_size):
            tally["strays"] += batch.strays
            found = self._predict(batch, precision, source.scale)
            for tile, slot in zip(batch.tiles, batch.slots, strict=True):
                if slot is not None:
                    valid = crop_inner(tile, batch.valid[slot])
                    self._accumulate(
                        band, tile, found[slot], weights[0][tile.row], weights[1][tile.col], valid
                    )
                if tile.col == len(grid.cols) - 1:
                    for sums, valid in band.pop_rows(grid.rows.final_before(tile.row)):
                        decided = valid & torch.isfinite(sums).all(dim=0).cpu().numpy()
                        tally["undecided"] += int(np.count_nonzero(valid & ~decided))
                        yield sums, decided
            advance(len(batch.tiles))

    @torch.inference_mode()
    def logits(self, scaled: Tensor, member: int, precision: str) -> Tensor:
        """What a model says of some windows.

        Args:
            scaled: (N, bands, height, width) normalised, on the device.
            member: number of the model.
            precision: one of PRECISIONS.

        Returns:
            (N, channels, height, width) in that precision.

        Raises:
            ConfigError: the model can't be compiled here.
        """
        with torch.autocast(self.device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            try:
                found: Tensor = self._run[member](scaled.contiguous(memory_format=torch.channels_last))
            except RuntimeError as error:
                if not self._compiled:
                    raise
                raise ConfigError(
                    f"compile=true: torch can't compile this model on this machine ({first_line(error)}); "
                    "leave it out"
                ) from error
        return found

    @torch.inference_mode()
    def predict_windows(self, image: NDArray[Any], valid: NDArray[np.bool_], precision: str) -> NDArray[Any]:
        """The classes (N, height, width) of whole windows; the arguments are those of a batch."""
        total: Any = None
        for share, logits in self._votes(image, valid, precision):
            found = self._probabilities(logits) * share
            total = found if total is None else total.add_(found)
        ids, _ = decode_probabilities(total.transpose(0, 1), self.task.binary, self._ensemble.threshold)
        return ids.cpu().numpy()

    def _votes(
        self, image: NDArray[Any], valid: NDArray[np.bool_], precision: str
    ) -> Iterator[tuple[float, Tensor]]:
        """What each model says in each view, and how much that counts.

        Args:
            image: (N, bands, height, width) raw band values.
            valid: (N, height, width).
            precision: one of PRECISIONS.

        Yields:
            A share of 1, and logits (N, channels, height, width) over temperature, in the window's frame.
        """
        cuda = self.device.type == "cuda"
        pixels, inside = torch.from_numpy(image), torch.from_numpy(valid)
        if cuda:
            pixels, inside = pixels.pin_memory(), inside.pin_memory()
        pixels = pixels.to(self.device, non_blocking=cuda)
        inside = inside.to(self.device, non_blocking=cuda)
        for member, temperature in enumerate(self._ensemble.temperatures):
            scaled = self._normalize[member](pixels, inside)
            for view in self._views:
                logits = view.invert(self.logits(view.apply(scaled), member, precision))
                share = self._ensemble.weights[member] / len(self._views)
                yield share, logits if temperature == 1 else logits.float() / temperature

    @torch.inference_mode()
    def _accumulate(
        self,
        band: RowBuffer,
        tile: Tile,
        found: Tensor,
        down: Tensor,
        across: Tensor,
        valid: NDArray[np.bool_],
    ) -> None:
        """Adds a window to the band, some rows at a time on a CPU, so that they stay in its caches.

        Args:
            band: where it goes.
            tile: the window.
            found: what _predict says of it.
            down: (height,) weights of its inner rows.
            across: (width,) weights of its inner columns.
            valid: (height, width) of its inner pixels.
        """
        row, col, height, width = tile.inner
        step = _ROWS if self.device.type == "cpu" else height
        for begin in range(0, height, step):
            rows = slice(begin, min(begin + step, height))
            likely = self._probabilities(found[None, :, rows])[0] if self.n_passes == 1 else found[:, rows]
            inner = Window(row + begin, col, rows.stop - begin, width)
            band.add(inner, likely, down[rows, None] * across, valid[rows])

    @torch.inference_mode()
    def _predict(self, batch: Batch, precision: str, scale: ResolutionScale) -> list[Tensor]:
        """What is found at the inner pixels of each window that the models see.

        Returns:
            Per window logits (channels, height, width) of the one vote, or probabilities (classes, height,
            width), the mean of several.
        """
        if not len(batch.image):
            return []
        seen = [tile for tile, slot in zip(batch.tiles, batch.slots, strict=True) if slot is not None]
        totals: list[Tensor] = []
        for share, found in self._votes(batch.image, batch.seen, precision):
            logits = scale.inverse(found, *batch.valid.shape[1:])
            for i, tile in enumerate(seen):
                inner: Any = crop_inner(tile, logits[i : i + 1])  # type: ignore[arg-type] # slices tensors, too
                if self.n_passes == 1:
                    totals.append(inner[0])
                elif len(totals) <= i:
                    totals.append(self._probabilities(inner)[0] * share)
                else:
                    totals[i].add_(self._probabilities(inner)[0], alpha=share)
        return totals

    def _probabilities(self, logits: Tensor) -> Tensor:
        # several times faster on a CPU than softmax over channels_last or bfloat16
        return self.task.probabilities(logits.to(torch.float32, memory_format=torch.contiguous_format))

    def decode(self, probabilities: Tensor) -> Tensor:
        """Return the class ids (rows, width) of probabilities (classes, rows, width), as in maps."""
        return decode_probabilities(probabilities, self.task.binary, self._ensemble.threshold)[0]

    @torch.inference_mode()
    def _decide(self, sums: Tensor, valid: NDArray[np.bool_], shown: OutputOptions) -> OutputRows:
        return decode_rows(sums, valid, self.task.binary, self._ensemble.threshold, shown)
