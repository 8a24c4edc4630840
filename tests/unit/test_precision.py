"""precision=auto on a CPU takes what is faster there, once, and the run folder says what."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import losses
from geo_seg.config.training import TrainConfig
from geo_seg.training import precision
from geo_seg.training.precision import choose_precision, measure_steps
from geo_seg.training.resume import _with_findings
from tests.config.test_answers import answer_to, clean_hydra  # noqa: F401 - a fixture

EXAMPLE = "precision=auto takes bf16-mixed on CPUs where it is slower; *-true ends in a traceback"


def config(**trainer: Any) -> TrainConfig:
    found = TrainConfig(model={}, loss={}, optimizer={}, scheduler={}, trainer={})
    found.trainer = {"accelerator": "cpu", "devices": 1, "precision": "auto", **trainer}
    return found


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of steps in float32 and with bfloat16 on a CPU that has instructions for it."""
    seconds = [1.0, 1.0]
    monkeypatch.setattr(precision, "supports_bf16", lambda device: device == "cpu")
    monkeypatch.setattr(precision, "measure_steps", lambda module, window: tuple(seconds))
    return seconds


@pytest.mark.fault("precision", EXAMPLE)
@pytest.mark.parametrize(
    ("half", "chosen"), [(0.5, "bf16-mixed"), (0.89, "bf16-mixed"), (0.91, "32-true"), (1.45, "32-true")]
)
def test_a_cpu_trains_in_what_is_faster_there(measured: list[float], half: float, chosen: str) -> None:
    measured[1] = half
    said: list[str] = []
    found = choose_precision(config(), None, lambda *_: None, said.append)  # type: ignore[arg-type]
    assert found.trainer["precision"] == chosen
    assert said[0].startswith(f"precision: {chosen} (bf16-mixed {1 / half:.2f} times as fast as 32-true")


@pytest.mark.fault("precision", EXAMPLE)
@pytest.mark.parametrize(
    "given",
    [{"precision": "32-true"}, {"precision": "bf16-mixed"}, {"devices": 2}, {"devices": "auto"}],
)
def test_nothing_is_measured_where_it_is_said_or_several_processes_would_differ(
    measured: list[float], given: dict[str, Any]
) -> None:
    def built(*_: Any) -> Any:
        raise AssertionError("a model was built")

    asked = config(**given)
    assert choose_precision(asked, None, built, print) is asked  # type: ignore[arg-type]
    compiled = replace(config(), compile=True)
    assert choose_precision(compiled, None, built, print) is compiled  # type: ignore[arg-type]


@pytest.mark.fault("precision", EXAMPLE)
def test_a_run_that_is_taken_up_keeps_what_was_measured_at_its_beginning() -> None:
    held = {"trainer": {"precision": "bf16-mixed"}}
    assert _with_findings(config(), held).trainer["precision"] == "bf16-mixed"
    assert _with_findings(config(precision="32-true"), held).trainer["precision"] == "32-true"


@pytest.mark.fault("precision", EXAMPLE)
def test_both_precisions_are_stepped_through_and_leave_no_gradient() -> None:
    seen = []

    class Net(torch.nn.Conv2d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found = super().forward(image)
            seen.append(found.dtype)
            return found

    task = losses.Task("multiclass", 3)
    module: Any = torch.nn.Module()
    module.model, module.loss = Net(2, 3, 1), losses.build("cross_entropy", task)
    module.task, module.metadata = task, SimpleNamespace(mean=[0, 0])
    times = measure_steps(module, 32)
    assert all(seconds > 0 for seconds in times)
    assert seen == [torch.float32, torch.bfloat16] * 3
    assert module.model.weight.grad is None


@pytest.mark.fault("precision", EXAMPLE)
@pytest.mark.parametrize("wrong", ["bf16-true", "16-true", "64-true", "64", "transformer-engine", "bf32"])
def test_a_precision_that_training_does_not_have_is_answered_at_once(wrong: str) -> None:
    answer = answer_to(f"trainer.precision={wrong}")
    assert answer.startswith(f"trainer.precision={wrong}: unknown choice ")
    assert "16-mixed, 32, 32, 32-true, auto, bf16-mixed" in answer


def test_the_precisions_that_it_has_are_taken() -> None:
    for given in ("auto", "32-true", "32", "bf16-mixed", "16-mixed"):
        assert answer_to(f"trainer.precision={given}") == ""
