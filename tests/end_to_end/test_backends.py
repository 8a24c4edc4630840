"""OpenVINO says what torch says, whatever the windows; what it can't run is told."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from geo_seg.errors import ConfigError
from geo_seg.models.layers import PadToStride
from geo_seg.models.precision import supports_bf16
from geo_seg.models.registry import build_model
from geo_seg.prediction.openvino_backend import OpenVINOModel
from tests.conftest import write_raster
from tests.end_to_end.test_inference import Threshold, draw, predict, read, write_checkpoint

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs the extra openvino"
)


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("name", ["unet", "fpn", "segformer"])
def test_a_translated_network_says_the_same_at_any_size_and_batch(name: str) -> None:
    torch.manual_seed(0)
    model = build_model({"name": name, "encoder": "resnet18", "weights": None}, 3, 4).eval()
    translated = OpenVINOModel(model, 3)
    with torch.inference_mode():
        for shape in ((1, 3, 64, 64), (3, 3, 128, 96), (1, 3, 50, 70)):
            image = torch.randn(shape)
            expected = model(image)
            torch.testing.assert_close(translated(image), expected, atol=1e-3, rtol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            half = translated(image)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=0.5, rtol=0.5)
    if supports_bf16("cpu"):
        assert not torch.equal(half, translated(image))


@pytest.mark.slow
@needs_openvino
def test_a_map_of_openvino_is_that_of_torch(tmp_path: Path) -> None:
    from geo_seg.checkpoints.checkpoint import load_checkpoint

    (tmp_path / "run").mkdir()
    found = load_checkpoint(write_checkpoint(tmp_path / "run"))
    source = write_raster(tmp_path / "image.tif", draw((2, 150, 170)))
    for backend in ("torch", "openvino"):
        predict(source, tmp_path / backend, found, backend=backend, probabilities="top", tta="d4", window=96)
    one, other = (read(tmp_path / b / "image_probabilities.tif").astype(int) for b in ("torch", "openvino"))
    assert np.abs(one - other).max() <= 1
    same = read(tmp_path / "torch" / "image_classes.tif") == read(tmp_path / "openvino" / "image_classes.tif")
    assert same.mean() > 0.999


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="only for the architectures of model="):
        OpenVINOModel(Threshold(), 2)


@needs_openvino
def test_a_network_that_tracing_fixes_to_one_size_is_refused() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, :2] * float(image.shape[-1])  # a number in the trace

    with pytest.raises(ConfigError, match="gives other logits than torch at other sizes"):
        OpenVINOModel(PadToStride(Fixed()), 2)
