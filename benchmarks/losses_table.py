"""Writes docs/losses.md: what each loss is and does, from the code, with measured behaviour and errors.

    python benchmarks/losses_table.py

Texts and options come from docstrings and config/loss/*.yaml, so they can't disagree with the code; behaviour
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
with the label `ignore_index` (255 unless said otherwise) give neither value nor gradient, whatever their
logits are; a batch without valid pixels gives exactly 0 with zero gradients; arithmetic is in float32 at
least, also under autocast; one tensor of the size of the logits is kept for the backward pass.

The table holds what was measured: the loss of a batch with no valid pixel; of a sure and perfect prediction;
of the same where one class is absent; and the largest error of the value (relative) and of the gradient
(relative to its largest element) against a float64 computation from the paper's definition, for logits that
were rounded to each type. Half-precision logits lose what they are rounded by, not more.

| loss | modes | class weights | nothing valid | perfect | class absent | float16 | bfloat16 | float32 |
|---|---|---|---|---|---|---|---|---|
"""


def task_of(mode: str, weights: tuple[float, ...] | None = None) -> losses.Task:
    """A task with three classes, or two."""
    number = 3 if mode == "multiclass" else 2
    return losses.Task(mode, number, class_weights=weights, class_counts=(500, 300, 200)[:number])


def draw(task: losses.Task, shape: tuple[int, int, int] = (2, 12, 12)) -> tuple[Tensor, Tensor]:
    """Logits and labels in blobs, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, task.num_classes, (shape[0], 4, 4), generator=generator)
    labels = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return torch.randn(shape[0], task.channels, *shape[1:], generator=generator) * 2, labels


def sure(task: losses.Task, labels: Tensor) -> Tensor:
    """Logits that say what the labels say."""
    known = torch.where(labels == 255, 0, labels)
    if task.binary:
        return known.unsqueeze(1) * 80.0 - 40.0
    return nn.functional.one_hot(known, task.num_classes).movedim(-1, 1) * 80.0 - 40.0


def errors(name: str, task: losses.Task, dtype: torch.dtype) -> tuple[float, float]:
    """Relative error of value and gradient for logits that were rounded to dtype."""
    logits, labels = draw(task)
    exact = logits.double().requires_grad_()
    expected = getattr(loss_oracles, name)(exact, labels, task)
    expected.backward()
    ours = logits.to(dtype).requires_grad_()
    value = losses.build(name, task)(ours, labels)
    value.backward()
    of_value = abs(value.item() - expected.item()) / abs(expected.item())
    of_grad = (ours.grad.double() - exact.grad).abs().max() / exact.grad.abs().max()
    return of_value, of_grad.item()


def takes_weights(name: str, mode: str) -> bool:
    """Whether a loss has a use for class weights."""
    try:
        losses.build(name, task_of(mode, (1.0, 2.0, 3.0)[: 3 if mode == "multiclass" else 2]))
    except losses.LossError:
        return False
    return True


def measured(name: str) -> str:
    """The row of the table."""
    mode = losses.modes(name)[-1]
    task = task_of(mode)
    loss = losses.build(name, task)
    logits, labels = draw(task)
    absent = torch.where(labels == task.num_classes - 1, 0, labels)
    numbers = [
        loss(logits, torch.full_like(labels, 255)).item(),
        *(loss(sure(task, known), known).item() for known in (labels, absent)),
    ]
    cells = [f"{abs(number):.0f}" if abs(number) < 1e-6 else f"{number:.2g}" for number in numbers]
    cells += ["{:.0e}, {:.0e}".format(*errors(name, task, dtype)) for dtype in DTYPES]
    weights = "yes" if any(takes_weights(name, mode) for mode in losses.modes(name)) else "no"
    return f"| [{name}](#{name}) | {', '.join(losses.modes(name))} | {weights} | {' | '.join(cells)} |\n"


def section(name: str) -> str:
    """What docstrings and YAML say of a loss: when to choose it, its equation and source, its options."""
    lines = (ROOT / "config" / "loss" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = lines[: lines.index(f"name: {name}")]
    built = [type(losses.build(name, task_of(mode))) for mode in losses.modes(name)]
    text = f"\n## {name}\n\n{' '.join(line.removeprefix('# ') for line in head)}\n\n"
    text += _body(losses.registry._LOSSES[name].factory) + "\n"
    for kind in dict.fromkeys(built):
        text += f"\n`{kind.__name__}`: {_body(kind)}\n"
    options = [line for line in lines if not line.startswith(("#", "name:"))]
    if options:
        text += "\n| option | default | |\n|---|---|---|\n"
        for line in options:
            setting, _, comment = line.partition(" # ")
            option, _, default = setting.partition(": ")
            text += f"| {option} | {default} | {comment} |\n"
    return text


def _body(of: object) -> str:
    """A docstring up to its arguments."""
    return inspect.getdoc(of).split("\nArgs:")[0].rstrip()


def main() -> None:
    """Writes the file."""
    torch.set_num_threads(1)
    names = losses.available()
    text = HEAD + "".join(map(measured, names))
    text += "\nHow fast they are, beside public libraries: [losses_speed.md](losses_speed.md). What each of\n"
    text += "them trains on two real data sets: [which_loss.md](which_loss.md).\n"
    text += "".join(map(section, names))
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "losses.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
