"""Networks in OpenVINO's form, which runs them faster than torch on a CPU."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from geo_seg.errors import ConfigError, first_line
from geo_seg.models.layers import PadToStride

_EXAMPLE = (1, 64, 64)  # batch, height and width that a network is traced with ...
_PROOF = (2, 96, 160)  # ... and others, at which it must say the same
_TOLERANCE = 1e-2  # of logits, whose differences from torch are about 1e-4
_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOModel(nn.Module):
    """A network that OpenVINO runs; everything around it stays in torch.

    Args:
        model: with a network for sides that are multiples of the stride inside.
        bands: that it takes.

    Raises:
        ConfigError: it can't be translated, or doesn't say the same then.
    """

    def __init__(self, model: nn.Module, bands: int) -> None:
        super().__init__()
        if not isinstance(model, PadToStride):
            raise ConfigError("backend=openvino: is for the architectures of model=; take backend=torch")
        self._whole = PadToStride(_OpenVINONet(model.net, bands, model.min_size), model.min_size)
        batch, height, width = _PROOF
        probe = torch.randn(batch, bands, height, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            differs = float((self._whole(probe) - model(probe)).abs().max())
        if not differs <= _TOLERANCE:
            raise ConfigError(
                f"backend=openvino: this model says something else at other sizes than the one that it was "
                f"translated at (logits differ by {differs:.2g}); take backend=torch"
            )

    def forward(self, image: Tensor) -> Tensor:
        """Predicts logits; inside torch.autocast in its precision."""
        logits: Tensor = self._whole(image)
        return logits


class _OpenVINONet(nn.Module):
    def __init__(self, net: nn.Module, bands: int, least: int) -> None:
        super().__init__()
        import openvino  # an extra

        batch, height, width = _EXAMPLE
        example = torch.zeros(batch, bands, max(height, least), max(width, least))
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # sizes that tracing takes for constants are proved afterwards
                found = openvino.convert_model(net, example_input=example)
            found.reshape({0: [-1, bands, -1, -1]})
        except Exception as error:  # OpenVINO raises many kinds
            raise ConfigError(
                f"backend=openvino: can't translate this model ({first_line(error)}); take backend=torch"
            ) from error
        self._found = found
        self._core = openvino.Core()
        self._compiled: dict[str, Any] = {}

    def forward(self, image: Tensor) -> Tensor:
        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        precision = "bf16" if half else "fp32"
        if precision not in self._compiled:
            hints = {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
            }
            self._compiled[precision] = self._core.compile_model(self._found, "CPU", hints)
        return torch.from_numpy(self._compiled[precision](image.contiguous().numpy())[0])
