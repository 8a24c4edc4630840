"""Generator of docs/losses.md: text and options of each loss from the code, and measured errors.

    python benchmarks/losses_table.py

Text and options come from docstrings and config/loss/*.yaml, so they cannot disagree with the code; behaviour
and errors are measured here, the errors against the float64 oracles of the tests. The speed table is
docs/losses_speed.md, the output of benchmarks/losses.py.
"""

import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# ruff: noqa: E402 - what follows needs the path as it is set here
if not __package__:  # run as a script: this folder comes first, and its losses.py hides the package
    sys.path[0] = str(ROOT)

import torch
from torch import Tensor, nn

import losses
from tests.contract import loss_oracles

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
HEAD = """# Losses

Chosen by name: `python train.py loss=<name>`, options by `loss.<option>=<value>`; in Python
`losses.build("<name>", losses.Task("multiclass", 6), <option>=<value>)`.

What all of them share: logits (N, C, H, W) of any float type, labels (N, H, W) of any integer type; pixels
with the label `ignore_index` (255 by default) contribute neither value nor gradient, whatever their
logits are; a batch without valid pixels gives exactly 0 with zero gradients; arithmetic is in float32 at
least, also under autocast; one tensor of the size of the logits is kept for the backward pass.

The table has measured values: the loss of a batch without valid pixels; of a confident, perfect prediction;
of the same where one class is absent; and the largest error of the value (relative) and of the gradient
(relative to its largest element) against a float64 computation from the paper's definition, for logits that
were rounded to each type. With half-precision logits the error is that of the rounding, no more.

| loss | modes | class weights | nothing valid | perfect | class absent | float16 | bfloat16 | float32 |
|---|---|---|---|---|---|---|---|---|
"""


def task_of(mode: str, weights: tuple[float, ...] | None = None) -> losses.Task:
    """Return a task with three classes, or two in binary mode."""
    number = 3 if mode == "multiclass" else 2
    return losses.Task(mode, number, class_weights=weights, class_counts=(500, 300, 200)[:number])


def draw(task: losses.Task, shape: tuple[int, int, int] = (2, 12, 12)) -> tuple[Tensor, Tensor]:
    """Return logits and blob-like labels, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, task.num_classes, (shape[0], 4, 4), generator=generator)
    labels = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return torch.randn(shape[0], task.channels, *shape[1:], generator=generator) * 2, labels


def confident_logits(task: losses.Task, labels: Tensor) -> Tensor:
    """Return saturated logits that predict the labels."""
    classes = torch.where(labels == 255, 0, labels)
    if task.binary:
        return classes.unsqueeze(1) * 80.0 - 40.0
    return nn.functional.one_hot(classes, task.num_classes).movedim(-1, 1) * 80.0 - 40.0


def missing_oracle(name: str) -> str | None:
    """Return a message if a loss has no second implementation to be compared with, else None."""
    if hasattr(loss_oracles, name):
        return None
    return f"{name} has no oracle in tests/contract/loss_oracles.py: its errors are not measured"


def errors(name: str, task: losses.Task, dtype: torch.dtype) -> tuple[float, float]:
    """Return the relative errors of value and gradient for logits rounded to dtype."""
    logits, labels = draw(task)
    exact = logits.double().requires_grad_()
    expected = getattr(loss_oracles, name)(exact, labels, task)
    expected.backward()
    ours = logits.to(dtype).requires_grad_()
    value = losses.build(name, task)(ours, labels)
    value.backward()
    value_error = abs(value.item() - expected.item()) / abs(expected.item())
    grad_error = (ours.grad.double() - exact.grad).abs().max() / exact.grad.abs().max()
    return value_error, grad_error.item()


def takes_weights(name: str, mode: str) -> bool:
    """Return whether a loss can use class weights."""
    try:
        losses.build(name, task_of(mode, (1.0, 2.0, 3.0)[: 3 if mode == "multiclass" else 2]))
    except losses.LossError:
        return False
    return True


def table_row(name: str) -> str:
    """Return the row of the table, from measurements."""
    mode = losses.modes(name)[-1]
    task = task_of(mode)
    loss = losses.build(name, task)
    logits, labels = draw(task)
    absent = torch.where(labels == task.num_classes - 1, 0, labels)
    values = [
        loss(logits, torch.full_like(labels, 255)).item(),
        *(loss(confident_logits(task, mask), mask).item() for mask in (labels, absent)),
    ]
    cells = [f"{abs(value):.0f}" if abs(value) < 1e-6 else f"{value:.2g}" for value in values]
    if message := missing_oracle(name):
        print(f"note: {message}")
        cells += ["–"] * len(DTYPES)
    else:
        cells += ["{:.0e}, {:.0e}".format(*errors(name, task, dtype)) for dtype in DTYPES]
    weights = "yes" if any(takes_weights(name, mode) for mode in losses.modes(name)) else "no"
    return f"| [{name}](#{name}) | {', '.join(losses.modes(name))} | {weights} | {' | '.join(cells)} |\n"


def section(name: str) -> str:
    """Return the section of a loss: when to choose it, equation and source, options."""
    lines = (ROOT / "config" / "loss" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = lines[: lines.index(f"name: {name}")]
    loss_classes = [type(losses.build(name, task_of(mode))) for mode in losses.modes(name)]
    text = f"\n## {name}\n\n{' '.join(line.removeprefix('# ') for line in head)}\n\n"
    text += _body(losses.registry._LOSSES[name].factory) + "\n"
    for loss_class in dict.fromkeys(loss_classes):
        text += f"\n`{loss_class.__name__}`: {_body(loss_class)}\n"
    options = [line for line in lines if not line.startswith(("#", "name:"))]
    if options:
        text += "\n| option | default | |\n|---|---|---|\n"
        for line in options:
            setting, _, comment = line.partition(" # ")
            option, _, default = setting.partition(": ")
            text += f"| {option} | {default} | {comment} |\n"
    return text


def _body(documented: object) -> str:
    """Return a docstring up to its arguments."""
    return inspect.getdoc(documented).split("\nArgs:")[0].rstrip()


def main() -> None:
    """Write docs/losses.md."""
    torch.set_num_threads(1)
    names = losses.available()
    text = HEAD + "".join(map(table_row, names))
    text += "\nHow fast they are, beside public libraries: [losses_speed.md](losses_speed.md). What each of\n"
    text += "them trains on two real data sets: [which_loss.md](which_loss.md).\n"
    text += "".join(map(section, names))
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "losses.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
