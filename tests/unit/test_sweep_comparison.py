"""Differences between runs are called real when they are, and only then; a leaderboard says what ran."""

import base64
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geo_seg.errors import DataError
from geo_seg.report.html_page import WIDE
from geo_seg.sweeps.compare import compare, group_runs, mean_iou_from_confusion, read_runs, swept_keys
from geo_seg.sweeps.leaderboard import write_leaderboard
from geo_seg.sweeps.outcomes import Outcome, write_outcome


def scenes(accuracy: float, count: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    """Confusion matrices of scenes that differ in difficulty, at about one accuracy."""
    draw = np.random.default_rng(seed)
    hard = np.random.default_rng(99).normal(0, 0.08, count)  # the same scenes for every run
    found = {}
    for i in range(count):
        p = float(np.clip(accuracy + hard[i] + draw.normal(0, 0.01), 0.05, 0.95))
        right = draw.binomial(1000, p, 2)
        found[f"s{i}"] = np.array([[right[0], 1000 - right[0]], [1000 - right[1], right[1]]])
    return found


def test_mean_iou_equals_a_count_by_hand_and_leaves_out_absent_classes() -> None:
    assert mean_iou_from_confusion(np.array([[3, 1], [2, 4]])) == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert mean_iou_from_confusion(np.array([[3, 1], [0, 0]])) == pytest.approx(3 / 4)
    assert mean_iou_from_confusion(np.zeros((2, 2), int)) == 0


def test_a_paired_difference_is_found_that_the_spread_over_scenes_would_hide() -> None:
    better, worse, same = scenes(0.80, seed=1), scenes(0.76, seed=2), scenes(0.80, seed=3)
    values = [mean_iou_from_confusion(np.stack(list(better.values())))]
    assert np.std(values) > 0.04  # scenes differ more than the runs do
    first, second, third = compare([[better], [worse], [same]])
    assert first is None
    assert second is not None and second.significant and second.low < second.value < second.high < 0
    assert third is not None and not third.significant


def test_the_point_estimate_is_the_difference_over_all_scenes() -> None:
    a, b = scenes(0.8, seed=1), scenes(0.7, seed=2)
    found = compare([[a], [b]])[1]
    total = [mean_iou_from_confusion(np.sum(list(run.values()), 0)) for run in (a, b)]
    assert found is not None
    assert found.value == pytest.approx(total[1] - total[0])


def test_the_spread_of_repetitions_widens_the_interval() -> None:
    base, other = scenes(0.80, seed=1), [scenes(0.78, seed=2)] * 3
    shaky = [scenes(p, seed=2) for p in (0.70, 0.78, 0.86)]
    steady = compare([[base], other])[1]
    wide = compare([[base], shaky])[1]
    assert steady is not None and wide is not None
    assert wide.high - wide.low > 2 * (steady.high - steady.low)
    assert not wide.significant


def test_false_alarms_are_rare() -> None:
    alarms = 0
    for trial in range(40):
        found = compare([[scenes(0.8, seed=3 * trial)], [scenes(0.8, seed=3 * trial + 1)]])[1]
        assert found is not None
        alarms += found.significant
    assert alarms <= 8  # 5 % wanted; a bootstrap over 12 scenes is a little bold


def test_few_or_different_scenes_give_no_verdict() -> None:
    assert compare([[scenes(0.9, 4)], [scenes(0.5, 4)]]) == [None, None]
    renamed = {f"other {name}": matrix for name, matrix in scenes(0.5).items()}
    assert compare([[scenes(0.9)], [renamed]]) == [None, None]


def a_sweep(folder: Path) -> Path:
    """Two losses with two seeds each, a failed run, a skipped one, and one that is still going on."""
    sweep = folder / "sweeps" / "one"
    number = 0
    for loss, accuracy in (("dice", 0.8), ("focal", 0.6)):
        for seed in range(2):
            run = sweep / f"{number}_{loss}"
            value = accuracy + seed / 100
            write_outcome(run, Outcome("done", (f"loss={loss}", f"seed={seed}", "a=1"), value, seconds=3.0))
            matrices = [
                {"name": n, "confusion": m.tolist()} for n, m in scenes(accuracy, seed=number).items()
            ]
            (run / "scenes.json").write_text(json.dumps({"val": matrices}))
            classes = [{"name": "<land>", "iou": value}, {"name": "water", "iou": None}]
            scores = {"miou": value, "accuracy": value, "classes": classes}
            (run / "metrics.json").write_text(json.dumps({"val": scores, "test": scores, "epochs": 2}))
            (run / "metrics.csv").write_text(f"epoch,val/miou\n0,0.1\n1,{value}\n")
            number += 1
    write_outcome(sweep / "4_mcc", Outcome("failed", ("loss=mcc", "seed=0", "a=1"), error="it broke <here>"))
    write_outcome(sweep / "5_bce", Outcome("skipped", ("loss=bce", "seed=0", "a=1"), error="not for it"))
    (sweep / "10_ce" / ".hydra").mkdir(parents=True)
    (sweep / "10_ce" / ".hydra" / "overrides.yaml").write_text("[loss=ce, seed=0, a=1]")
    return sweep


def test_runs_are_read_in_order_and_grouped_by_everything_but_the_seed(tmp_path: Path) -> None:
    runs = read_runs(a_sweep(tmp_path))
    assert [run.name for run in runs] == ["0_dice", "1_dice", "2_focal", "3_focal", "4_mcc", "5_bce", "10_ce"]
    assert runs[-1].outcome.status == "running"
    assert swept_keys(runs) == ["loss", "seed"]
    best, second = group_runs(runs)
    assert best.choices == {"loss": "dice"}
    assert best.mean == pytest.approx(0.805)
    assert best.spread == pytest.approx(0.01 / 2**0.5)
    assert second.difference is not None and second.difference.significant


def test_the_leaderboard_is_written_as_csv_markdown_and_a_page(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    shown = write_leaderboard(sweep)
    assert "| 1     | dice  | 2    | 0.8050 ± 0.0071 |" in shown
    assert "7 runs: 4 done, 1 failed, 1 skipped, 1 running" in shown
    assert "real" in (sweep / "leaderboard.md").read_text()
    with (sweep / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows[:4]] == ["1_dice", "0_dice", "3_focal", "2_focal"]
    assert rows[0]["val_iou_<land>"] == "0.81"
    assert rows[0]["val_iou_water"] == ""
    page = (sweep / "leaderboard.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # bars of loss and of seed, curves, classes
    assert page.count("<img alt=") == 4
    assert "it broke &lt;here&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "aria-sort" in page


def test_runs_on_other_data_sets_share_a_leaderboard_but_are_not_compared(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    for number, loss in ((2, "focal"), (3, "focal")):
        run = sweep / f"{number}_{loss}"
        scores = json.loads((run / "metrics.json").read_text())
        scores["val"]["classes"] = [{"name": name, "iou": 0.5} for name in ("water", "road", "roof")]
        (run / "metrics.json").write_text(json.dumps(scores))
        other = {name: np.pad(matrix, (0, 1)) + 1 for name, matrix in scenes(0.6).items()}
        matrices = [{"name": n, "confusion": m.tolist()} for n, m in other.items()]
        (run / "scenes.json").write_text(json.dumps({"val": matrices}))
    assert "No interval" in write_leaderboard(sweep)
    with (sweep / "leaderboard.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert (rows["2_focal"]["val_iou_roof"], rows["0_dice"]["val_iou_roof"]) == ("0.5", "")
    assert "IoU of every class" in (sweep / "leaderboard.html").read_text()


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no runs are in there"):
        write_leaderboard(tmp_path)


@pytest.mark.fault("first_hour", "pages at 380 px: text cut, figures unreadable, columns hidden")
def test_a_leaderboard_fits_a_narrow_window_or_shows_that_there_is_more(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    write_leaderboard(sweep)
    page = (sweep / "leaderboard.html").read_text()
    assert WIDE in page  # a shadow at the side of what is wider, and captions that stay in view
    assert page.count("<caption><span>") == page.count("<table>") == page.count("</span></caption>")
    narrow = re.sub(r'<div class="wide".*?</div>', "", page, flags=re.DOTALL)
    figures = re.findall(r"data:image/png;base64,([^\"]+)", narrow)
    assert len(figures) == 3  # bars of loss and seed, curves; the classes are in a wide part
    for figure in figures:
        width, _ = Image.open(io.BytesIO(base64.b64decode(figure))).size
        assert width <= 1.3 * 348  # of the 380 px: a font of 10 points keeps 10 px
