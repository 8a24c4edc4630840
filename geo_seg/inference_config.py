"""The schema of `python inference.py`: what its command line may say. No torch in here."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""What a model may compute in where it predicts."""


@dataclass
class InferenceConfig:
    """What `python inference.py` takes.

    Attributes:
        checkpoint: a run folder (its best checkpoint) or a checkpoint file; a list or a glob of these is an
            ensemble, whose probabilities are averaged.
        weights: per checkpoint of an ensemble, above 0; null weighs all alike.
        input: a raster, a folder, a glob, a STAC item, or a list of these.
        output: the folder that the maps go to; it is made when it isn't there.
        window: largest side of the windows in pixels, a multiple of 32; "auto" takes the largest up to 1536
            that the memory holds. Windows are made smaller where as many cover the raster.
        margin: pixels along the edges of a window that don't count, because the model sees too little of
            what lies around them; null takes what lets neighbours share 15 % of a window (80 pixels at 1536),
            at least 32; "auto" measures on the raster how many the model needs.
        overlap: pixels between the margins of neighbouring windows, over which they are blended.
        blend: "hann" (a raised cosine), "linear", or "crop" (each window up to the middle of the overlap).
        batch_size: windows that the model sees at once; "auto" takes 1 on a CPU and up to 8 on a GPU.
        max_memory: gigabytes (1e9 bytes) that a map may take beyond the model; wide rasters are made in
            panels of columns for it. null doesn't limit it: it follows the width times the window.
        tta: test-time augmentation, the mean over views of each window: "none", "flips" (4 views) or "d4"
            (8, with quarter turns); predicting takes as many times as long.
        resolution: side of the pixels that the model sees, in map units; windows are resampled to it, and
            logits back onto the raster's grid. null sees the raster's own pixels.
        temperature: what logits are divided by; null takes the checkpoint's.
        threshold: probability above which a pixel of a binary map is foreground; null takes the checkpoint's.
        probabilities: "none"; "top" writes the probability of the chosen class; "all" one band per class.
        uncertainty: also writes how much more probable the class is than the second one (margin), and the
            entropy of the probabilities as a share of the largest possible.
        probability_type: of these rasters: "uint8" (times 254), "float16" or "float32".
        polygons: also writes the map as polygons, into a GeoPackage.
        min_area: of polygons, in square metres (in pixels where the raster has no CRS): smaller ones become
            a part of the neighbour with which they share the longest border.
        simplify: of polygons: tolerance in pixels; 1 takes the stairs away that pixels make, 0 nothing.
        labels: what the maps are compared with: rasters or polygons as in training, as a file, a folder, a
            glob or a list of these; those of several rasters are told by their names. null for none.
        exists: what happens to a map that is there already: "overwrite", "skip" or "error".
        dry_run: says what a map would take (windows, memory, time, size) and writes nothing.
        engine: who makes the parts of the maps: "local" (this process), "torchrun" (the processes that
            torchrun has started) or "ray" (workers on this machine, or on the cluster of RAY_ADDRESS).
        workers: of engine=ray; "auto" takes one for each GPU, or each core without one.
        accelerator: "auto", "cpu", "gpu" or "mps".
        precision: what the model computes in: "fp32", "bf16" or "fp16"; "auto" is fp32 with
            labels, and measures else on a few windows which is fastest, of those that agree with fp32 about
            99.9 % of the classes.
        backend: what runs the models: "torch", or "openvino" (an extra, on a CPU), which is faster there.
        compile: makes the model faster with torch.compile first, which takes a minute or more.
        debug: shows the traceback of an error.
    """

    checkpoint: Any = MISSING
    weights: list[float] | None = None
    input: Any = MISSING
    output: str = MISSING
    window: int | str = "auto"
    margin: int | str | None = None
    overlap: int = 64
    blend: str = "hann"
    batch_size: int | str = "auto"
    max_memory: float | None = None
    tta: str = "none"
    resolution: float | None = None
    temperature: float | None = None
    threshold: float | None = None
    probabilities: str = "none"
    uncertainty: bool = False
    probability_type: str = "uint8"
    polygons: bool = False
    min_area: float = 0.0
    simplify: float = 0.0
    labels: Any = None
    exists: str = "overwrite"
    dry_run: bool = False
    engine: str = "local"
    workers: int | str = "auto"
    accelerator: str = "auto"
    precision: str = "auto"
    backend: str = "torch"
    compile: bool = False
    debug: bool = False
