"""The last checkpoint is predicted with, unless validation says otherwise beyond its interval."""

from pathlib import Path

import numpy as np
import pytest

from geo_seg.metrics.bootstrap import ResamplingUnits, difference_interval
from geo_seg.training.callbacks.checkpoint_choice import CheckpointChoice, choose_checkpoint
from geo_seg.training.callbacks.checkpointing import ResumableCheckpoint


def places(count: int, seed: int, accuracy: float) -> ResamplingUnits:
    """Places of two classes whose labels are those of every seed; the seed draws which pixels are right."""
    labelled, draw = np.random.default_rng(0), np.random.default_rng(seed)
    found = []
    for _ in range(count):
        labels = labelled.integers(0, 2, 400)
        predicted = np.where(draw.random(400) < accuracy, labels, 1 - labels)
        found.append(
            [np.bincount(part, minlength=2) for part in (labels[labels == predicted], labels, predicted)]
        )
    return ResamplingUnits("scenes", np.array(found))


def chosen(tmp_path: Path, units: dict[str, ResamplingUnits | None], **said: object) -> CheckpointChoice:
    for name in ("best", "last"):
        (tmp_path / f"{name}.ckpt").write_text(name)
    options = {"ended_early": False, "resamples": 200, "seed": 0, **said}
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    return choose_checkpoint(best, last, lambda file: units[file.stem], **options)  # type: ignore[arg-type]


def test_the_interval_of_a_difference_equals_a_loop_over_draws_that_both_share() -> None:
    first, second = places(8, 1, 0.7), places(8, 2, 0.75)
    found = difference_interval(first, second, 300, 5)
    values = []
    for weights in np.random.default_rng(5).multinomial(8, np.full(8, 1 / 8), 300):
        scores = []
        for units in (first, second):
            right, labelled, predicted = sum(w * c for w, c in zip(weights, units.counts, strict=True))
            scores.append((right / (labelled + predicted - right)).mean())
        values.append(scores[1] - scores[0])
    assert found == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))))
    assert difference_interval(first, None, 300, 5) is None
    assert difference_interval(first, second, 0, 5) is None


def test_the_last_one_is_taken_where_the_highest_is_not_better_beyond_the_interval(tmp_path: Path) -> None:
    choice = chosen(tmp_path, {"last": places(6, 1, 0.8), "best": places(6, 2, 0.8)})
    assert choice.checkpoint == "last"
    assert choice.difference is not None and choice.difference[0] <= 0
    assert "not surely better" in choice.reason and "6 scenes" in choice.reason


def test_the_highest_one_is_taken_where_it_is_better_beyond_the_interval(tmp_path: Path) -> None:
    choice = chosen(tmp_path, {"last": places(30, 1, 0.7), "best": places(30, 2, 0.9)})
    assert choice.checkpoint == "highest"
    assert choice.difference is not None and choice.difference[0] > 0


def test_too_few_places_say_nothing_against_the_last_one(tmp_path: Path) -> None:
    choice = chosen(tmp_path, {"last": None, "best": None})
    assert (choice.checkpoint, choice.difference) == ("last", None)


@pytest.mark.parametrize("said", [{"ended_early": True}, {"resamples": 0}])
def test_where_the_schedule_has_not_ended_or_nothing_is_drawn_the_score_decides(
    tmp_path: Path, said: dict[str, object]
) -> None:
    choice = chosen(tmp_path, {}, **said)
    assert choice.checkpoint == "highest"
    assert "highest validation score decides" in choice.reason


def test_nothing_is_counted_where_both_are_one(tmp_path: Path) -> None:
    for name in ("best", "last"):
        (tmp_path / f"{name}.ckpt").write_text("the same")
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    choice = choose_checkpoint(best, last, lambda file: 1 / 0, ended_early=False, resamples=9, seed=0)  # type: ignore[arg-type,return-value]
    assert choice.checkpoint == "last"


def test_best_becomes_the_last_one_and_the_highest_is_kept_for_a_longer_training(tmp_path: Path) -> None:
    files = ResumableCheckpoint(tmp_path, "val/miou", 10, lambda *_: None, lambda _: None)
    (tmp_path / "best.ckpt").write_text("of epoch 2")
    (tmp_path / "last.ckpt").write_text("of epoch 3")
    assert files.highest_path == tmp_path / "best.ckpt"
    for _ in range(2):  # a run that is interrupted here does it once more
        files.keep_last()
        assert (tmp_path / "best.ckpt").read_text() == "of epoch 3"
        assert files.highest_path.read_text() == "of epoch 2"
    files.keep_highest()
    assert (tmp_path / "best.ckpt").read_text() == "of epoch 2"
    assert {file.name for file in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}
