"""What runs a model on a CPU: OpenVINO and ONNX Runtime against torch, by CPU seconds on one core.

python benchmarks/backends.py [--window 768] [--rounds 5]
Runs them in turn on one window, which is what maps do on a CPU; a ratio is torch in float32 / the other, the
median over the rounds with the least and the most. What can't be imported is left out: openvino (an extra);
onnxruntime, onnx and onnxscript.
"""

import argparse
import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from geo_seg.models.precision import supports_bf16
from geo_seg.models.registry import build_model
from geo_seg.runtime.process import setup_process

MODELS = ("unet", "resnet18"), ("unet", "tu-tf_efficientnet_lite0"), ("segformer", "mit_b0")
BANDS, CLASSES = 4, 6


def onnx(model: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """Return a session of ONNX Runtime on one thread, at fixed size, which is the best case for it."""
    import onnxruntime

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(model, (image,), dynamo=True, verbose=False).save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, given)


def calls(model: nn.Module, image: torch.Tensor) -> dict[str, Callable[[], object]]:
    """One call of the model by each that is there."""
    from geo_seg.prediction.openvino_backend import OpenVINOModel

    last = image.to(memory_format=torch.channels_last)

    def in_bfloat16(net: nn.Module, given: torch.Tensor) -> Callable[[], object]:
        def call() -> object:
            with torch.autocast("cpu", torch.bfloat16):
                return net(given)

        return call

    net = model.to(memory_format=torch.channels_last)
    found: dict[str, Callable[[], object]] = {"torch fp32": lambda: net(last)}
    if supports_bf16("cpu"):
        found["torch bf16"] = in_bfloat16(net, last)
    try:
        translated = OpenVINOModel(model, BANDS)
        found["openvino fp32"] = lambda: translated(image)
        if supports_bf16("cpu"):
            found["openvino bf16"] = in_bfloat16(translated, image)
    except ModuleNotFoundError as error:
        print(f"openvino is left out: {error}", file=sys.stderr)
    try:
        found["onnxruntime fp32"] = onnx(model, image)
    except ModuleNotFoundError as error:
        print(f"onnxruntime is left out: {error}", file=sys.stderr)
    return found


def main() -> None:
    """Read the command line and print a Markdown table."""
    setup_process()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--window", type=int, default=768, help="side in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | | CPU s per Mpx | times as fast as torch fp32 |\n|---|---|---|---|")
    for name, encoder in MODELS:
        torch.manual_seed(0)
        model = build_model({"name": name, "encoder": encoder, "weights": None}, BANDS, CLASSES).eval()
        image = torch.randn(1, BANDS, options.window, options.window)
        with torch.inference_mode():
            ways = calls(model, image)
            for call in ways.values():
                call()
            took: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, call in ways.items():
                    begin = time.process_time()
                    call()
                    took[way].append(time.process_time() - begin)
        for way, seconds in took.items():
            each = statistics.median(seconds) * 1e6 / options.window**2
            ratios = [a / b for a, b in zip(took["torch fp32"], seconds, strict=True)]
            told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {name} {encoder} | {way} | {each:.2f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
