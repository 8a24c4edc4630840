"""Benchmark of the losses: time and memory of forward and backward, and those of public libraries.

    python benchmarks/losses.py [--losses dice lovasz] [--shapes 4x6x256] [--ignored 0 0.3] [--threads 1 2]

Every round times each implementation once, so that other load on the machine affects them all alike; printed
are medians over rounds, of our milliseconds and of the ratio theirs / ours (above 1: ours is faster). One
thread is timed in process time, several in wall time. Saved: bytes kept for the backward pass; peak: memory
allocated on top of the inputs, both in units of the logits. The libraries come with the extra `bench`; those
that are not installed are skipped.
"""

import argparse
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: this folder comes first, and its losses.py hides the package
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import losses
from benchmarks.peers import peers_of

Loss = Callable[[Tensor, Tensor], Tensor]
OURS = {
    "cross_entropy": ("cross_entropy", {}),
    "softmax_focal": ("softmax_focal", {}),
    "focal": ("focal", {}),
    "soft_bce": ("soft_bce", {}),
    "dice": ("dice", {}),
    "jaccard": ("jaccard", {}),
    "generalized_dice": ("generalized_dice", {}),
    "lovasz": ("lovasz", {}),
    "lovasz_1024_bins": ("lovasz", {"bins": 1024}),
    "boundary_19_19": ("boundary", {"theta0": 19, "theta": 19}),
    "boundary_3_5": ("boundary", {"theta0": 3, "theta": 5}),
    "ohem": ("ohem", {}),
    "ohem_half": ("ohem", {"thresh": 0.0}),  # min_kept: half of the pixels
    "duo_19_19": ("duo", {"theta0": 19, "theta": 19}),
    "duo_3_5": ("duo", {"theta0": 3, "theta": 5}),
    "cross_entropy_dice": ("compound", {"terms": {"cross_entropy": 1, "dice": 1}}),
}
# Freeing a block of nearly 32 MB once makes glibc keep smaller ones for the next call, as the activations of
# a network do in training; without it every call of every library pays for fresh pages.
_WARM_UP_BYTES = 31 << 20
BINARY = ("focal", "soft_bce", "dice", "jaccard", "generalized_dice", "lovasz")


@dataclass(frozen=True)
class Batch:
    """Logits that agree with blob-like labels on four pixels of five.

    Attributes:
        logits: (N, C, H, W).
        labels: (N, H, W) int64, 255 is ignored.
    """

    logits: Tensor
    labels: Tensor


def draw(shape: tuple[int, int, int], ignored: float) -> Batch:
    """Return a batch of (N, C, side, side) from a fixed seed; C = 1 is a binary task."""
    images, channels, side = shape
    generator = torch.Generator().manual_seed(0)
    classes = max(channels, 2)
    coarse = torch.randint(0, classes, (images, -(-side // 16), -(-side // 16)), generator=generator)
    labels = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :side, :side].contiguous()
    noisy = torch.rand(labels.shape, generator=generator) < 0.2
    noisy_labels = torch.where(noisy, torch.randint(0, classes, labels.shape, generator=generator), labels)
    logits = torch.randn(images, channels, side, side, generator=generator)
    if channels == 1:
        logits += (noisy_labels * 6.0 - 3.0).unsqueeze(1)
    else:
        logits.scatter_add_(1, noisy_labels.unsqueeze(1), torch.full((images, 1, side, side), 4.0))
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    return Batch(logits, labels)


def mode_of(batch: Batch) -> str:
    """Return the mode that the channels of a batch are for."""
    return "binary" if batch.logits.shape[1] == 1 else "multiclass"


def build(row: str, batch: Batch) -> Loss | None:
    """Return our loss of a row, or None if it does not work with the batch's number of channels."""
    name, options = OURS[row]
    mode = mode_of(batch)
    if mode not in losses.modes(name) or (mode == "binary" and row not in BINARY):
        return None
    if row == "ohem_half":
        options = {**options, "min_kept": batch.labels.numel() // 2}
    return losses.build(name, losses.Task(mode, max(batch.logits.shape[1], 2)), **options)


def step(loss: Loss, batch: Batch, threads: int) -> float:
    """Return the seconds of one forward and backward pass, with the gradient handed to the layer below."""
    leaf = batch.logits.detach().requires_grad_()
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    torch.autograd.grad(loss(leaf, batch.labels), leaf)
    return clock() - start


def time_all(
    implementations: dict[str, Loss], batch: Batch, threads: int, rounds: int, seconds: float
) -> dict[str, list]:
    """Return the seconds of every implementation in every round.

    Runs at least 3 rounds, then until `rounds` or `seconds` are used up.
    """
    start = time.monotonic()
    for loss in implementations.values():
        step(loss, batch, threads)
    times: dict[str, list] = {name: [] for name in implementations}
    order = list(implementations)
    for number in range(rounds):
        if number >= 3 and time.monotonic() - start > seconds:
            break
        random.shuffle(order)
        for name in order:
            times[name].append(step(implementations[name], batch, threads))
    return times


def saved_bytes(loss: Loss, batch: Batch) -> int:
    """Return the bytes that the graph keeps for the backward pass: each storage once, without the inputs."""
    inputs = {batch.logits.untyped_storage().data_ptr(), batch.labels.untyped_storage().data_ptr()}
    saved: dict[int, Tensor] = {}  # tensors stay alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(batch.logits.detach().requires_grad_(), batch.labels)
    return sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in inputs)


def peak_bytes(loss: Loss, batch: Batch) -> int:
    """Return the peak memory of a forward and backward pass beyond the inputs, with the gradient."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(loss, batch, 1)
    allocated = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak


def rows(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table as they are measured."""
    yield "| loss | N x C x side | ignored | threads | ms | saved | peak | theirs / ours: time, saved, peak |"
    yield "|---|---|---|---|---|---|---|---|"
    for shape in options.shapes:
        for ignored in options.ignored:
            batch = draw(shape, ignored)
            unit = batch.logits.numel() * batch.logits.element_size()
            for row in options.losses:
                ours = build(row, batch)
                if ours is None:
                    continue
                peers = dict(peers_of(row, mode_of(batch), ignored=ignored > 0))
                implementations = {"ours": ours, **peers}
                memory = {
                    name: (saved_bytes(loss, batch) / unit, peak_bytes(loss, batch) / unit)
                    for name, loss in implementations.items()
                }
                for threads in options.threads:
                    torch.set_num_threads(threads)
                    times = time_all(implementations, batch, threads, options.rounds, options.seconds)
                    yield line(row, shape, ignored, threads, times, memory)


def line(
    row: str,
    shape: tuple[int, int, int],
    ignored: float,
    threads: int,
    times: dict[str, list],
    memory: dict[str, tuple[float, float]],
) -> str:
    """Return one line of the table."""
    ours = times["ours"]
    peers = [
        f"{name} {statistics.median(t / o for t, o in zip(theirs, ours, strict=True)):.2f} "
        f"({memory[name][0]:.1f}, {memory[name][1]:.1f})"
        for name, theirs in times.items()
        if name != "ours"
    ]
    saved, peak = memory["ours"]
    return (
        f"| {row} | {'x'.join(map(str, shape))} | {ignored:.0%} | {threads} "
        f"| {statistics.median(ours) * 1e3:.1f} | {saved:.2f} | {peak:.2f} | {', '.join(peers)} |"
    )


def shape_of(text: str) -> tuple[int, int, int]:
    """Return "4x6x256" as (4, 6, 256)."""
    images, channels, side = (int(number) for number in text.split("x"))
    return images, channels, side


def main() -> None:
    """Print the table, each line as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", nargs="+", choices=list(OURS), default=list(OURS), metavar="NAME")
    shapes = [shape_of(text) for text in ("4x6x256", "2x10x512", "4x2x512", "4x1x512")]
    parser.add_argument("--shapes", nargs="+", type=shape_of, default=shapes, metavar="NxCxSIDE")
    parser.add_argument("--ignored", nargs="+", type=float, default=[0.0, 0.3], help="shares of the pixels")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=31, help="at most")
    parser.add_argument("--seconds", type=float, default=20.0, help="per line, then no further round")
    options = parser.parse_args()
    random.seed(0)
    torch.empty(_WARM_UP_BYTES, dtype=torch.uint8)
    warnings.simplefilter("ignore")
    for text in rows(options):
        print(text, flush=True)


if __name__ == "__main__":
    main()
