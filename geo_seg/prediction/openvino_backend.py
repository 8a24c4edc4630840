"""OpenVINO backend: networks converted for faster inference on a CPU."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from geo_seg.errors import ConfigError, first_line
from geo_seg.models.layers import PadToStride

_TRACE_SHAPE = (1, 64, 64)  # batch, height and width for tracing ...
_CHECK_SHAPE = (2, 96, 160)  # ... and for checking that other sizes give the same logits
_LOGIT_TOLERANCE = 1e-2  # converted networks differ from torch by about 1e-4
_PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOModel(nn.Module):
    """Model whose network runs in OpenVINO; padding and cropping stay in torch.

    Args:
        model: a PadToStride with the network to convert.
        bands: number of input bands.

    Raises:
        ConfigError: it can't be converted, or the converted network gives other logits.
    """

    def __init__(self, model: nn.Module, bands: int) -> None:
        super().__init__()
        if not isinstance(model, PadToStride):
            raise ConfigError("backend=openvino: only for the architectures of model=; use backend=torch")
        self._model = PadToStride(_OpenVINONet(model.net, bands, model.min_size), model.min_size)
        batch, height, width = _CHECK_SHAPE
        probe = torch.randn(batch, bands, height, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            difference = float((self._model(probe) - model(probe)).abs().max())
        if not difference <= _LOGIT_TOLERANCE:
            raise ConfigError(
                f"backend=openvino: the converted model gives other logits than torch at other sizes than "
                f"that of the conversion (difference {difference:.2g}); use backend=torch"
            )

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (N, channels, height, width); inside torch.autocast in its precision."""
        logits: Tensor = self._model(image)
        return logits


class _OpenVINONet(nn.Module):
    def __init__(self, net: nn.Module, bands: int, min_size: int) -> None:
        super().__init__()
        import openvino  # optional dependency

        batch, height, width = _TRACE_SHAPE
        example = torch.zeros(batch, bands, max(height, min_size), max(width, min_size))
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # sizes that tracing takes for constants are checked afterwards
                converted = openvino.convert_model(net, example_input=example)
            converted.reshape({0: [-1, bands, -1, -1]})
        except Exception as error:  # OpenVINO raises many types of exceptions
            raise ConfigError(
                f"backend=openvino: can't convert this model ({first_line(error)}); use backend=torch"
            ) from error
        self._converted = converted
        self._core = openvino.Core()
        self._compiled: dict[str, Any] = {}

    def forward(self, image: Tensor) -> Tensor:
        is_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        precision = "bf16" if is_bf16 else "fp32"
        if precision not in self._compiled:
            hints = {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision],
            }
            self._compiled[precision] = self._core.compile_model(self._converted, "CPU", hints)
        return torch.from_numpy(self._compiled[precision](image.contiguous().numpy())[0])
