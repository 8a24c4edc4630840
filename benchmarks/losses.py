"""Time and memory of the losses, forward and backward, beside the same losses of public libraries.

    python benchmarks/losses.py [--losses dice lovasz] [--shapes 4x6x256] [--ignored 0 0.3] [--threads 1 2]

Every round times each formulation once, so that whatever else the machine does meets them all alike; what is
printed are medians over rounds, of our milliseconds and of the ratio theirs / ours (above 1: ours is faster).
One thread is timed by its own clock, more of them by the wall. Saved: bytes kept for the backward pass; peak:
memory taken on top of the inputs, both in units of the logits. The libraries come with the extra `bench`;
those that are not installed are left out.
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
_SETTLING = 31 << 20
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
    """A batch of (N, C, side), drawn from a fixed seed; C = 1 is a binary task."""
    count, channels, side = shape
    generator = torch.Generator().manual_seed(0)
    classes = max(channels, 2)
    coarse = torch.randint(0, classes, (count, -(-side // 16), -(-side // 16)), generator=generator)
    labels = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :side, :side].contiguous()
    noisy = torch.rand(labels.shape, generator=generator) < 0.2
    seen = torch.where(noisy, torch.randint(0, classes, labels.shape, generator=generator), labels)
    logits = torch.randn(count, channels, side, side, generator=generator)
    if channels == 1:
        logits += (seen * 6.0 - 3.0).unsqueeze(1)
    else:
        logits.scatter_add_(1, seen.unsqueeze(1), torch.full((count, 1, side, side), 4.0))
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    return Batch(logits, labels)


def mode_of(batch: Batch) -> str:
    """What one channel, or several, are for."""
    return "binary" if batch.logits.shape[1] == 1 else "multiclass"


def build(row: str, batch: Batch) -> Loss | None:
    """Our loss of a row; None if it has no form for the batch's number of channels."""
    name, options = OURS[row]
    mode = mode_of(batch)
    if mode not in losses.modes(name) or (mode == "binary" and row not in BINARY):
        return None
    if row == "ohem_half":
        options = {**options, "min_kept": batch.labels.numel() // 2}
    return losses.build(name, losses.Task(mode, max(batch.logits.shape[1], 2)), **options)


def step(loss: Loss, batch: Batch, threads: int) -> float:
    """Seconds of one forward and backward pass; the gradient is handed on, as to the layer below."""
    leaf = batch.logits.detach().requires_grad_()
    clock = time.process_time if threads == 1 else time.perf_counter
    begin = clock()
    torch.autograd.grad(loss(leaf, batch.labels), leaf)
    return clock() - begin


def time_all(
    forms: dict[str, Loss], batch: Batch, threads: int, rounds: int, seconds: float
) -> dict[str, list]:
    """Seconds of every form in every round; at least 3 rounds, then until rounds or seconds are used up."""
    begin = time.monotonic()
    for loss in forms.values():
        step(loss, batch, threads)
    taken: dict[str, list] = {name: [] for name in forms}
    order = list(forms)
    for number in range(rounds):
        if number >= 3 and time.monotonic() - begin > seconds:
            break
        random.shuffle(order)
        for name in order:
            taken[name].append(step(forms[name], batch, threads))
    return taken


def saved_bytes(loss: Loss, batch: Batch) -> int:
    """Bytes that the graph keeps for the backward pass, each storage once, the inputs left out."""
    inputs = {batch.logits.untyped_storage().data_ptr(), batch.labels.untyped_storage().data_ptr()}
    kept: dict[int, Tensor] = {}  # tensors stay alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(batch.logits.detach().requires_grad_(), batch.labels)
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in inputs)


def peak_bytes(loss: Loss, batch: Batch) -> int:
    """The most memory that a forward and backward pass holds beyond the inputs, the gradient included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        step(loss, batch, 1)
    held = peak = 0
    for event in watch.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def rows(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the table, one by one, as they are measured."""
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
                forms = {"ours": ours, **dict(peers_of(row, mode_of(batch), ignored=ignored > 0))}
                memory = {
                    name: (saved_bytes(form, batch) / unit, peak_bytes(form, batch) / unit)
                    for name, form in forms.items()
                }
                for threads in options.threads:
                    torch.set_num_threads(threads)
                    taken = time_all(forms, batch, threads, options.rounds, options.seconds)
                    yield line(row, shape, ignored, threads, taken, memory)


def line(
    row: str,
    shape: tuple[int, int, int],
    ignored: float,
    threads: int,
    taken: dict[str, list],
    memory: dict[str, tuple[float, float]],
) -> str:
    """One line of the table."""
    ours = taken["ours"]
    peers = [
        f"{name} {statistics.median(t / o for t, o in zip(times, ours, strict=True)):.2f} "
        f"({memory[name][0]:.1f}, {memory[name][1]:.1f})"
        for name, times in taken.items()
        if name != "ours"
    ]
    saved, peak = memory["ours"]
    return (
        f"| {row} | {'x'.join(map(str, shape))} | {ignored:.0%} | {threads} "
        f"| {statistics.median(ours) * 1e3:.1f} | {saved:.2f} | {peak:.2f} | {', '.join(peers)} |"
    )


def shape_of(text: str) -> tuple[int, int, int]:
    """4x6x256 as (4, 6, 256)."""
    count, channels, side = (int(part) for part in text.split("x"))
    return count, channels, side


def main() -> None:
    """Prints the table, a line as soon as it is measured."""
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
    torch.empty(_SETTLING, dtype=torch.uint8)
    warnings.simplefilter("ignore")
    for text in rows(options):
        print(text, flush=True)


if __name__ == "__main__":
    main()
