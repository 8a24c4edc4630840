"""A guided search proposes what its space allows, learns from results, and goes on after an interruption."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from geo_seg.config.hydra_setup import register_schemas
from geo_seg.errors import ConfigError, SweepError
from geo_seg.sweeps.grid_sweeper import check_any_run_valid
from geo_seg.sweeps.optuna_sweeper import OptunaSweeper, OptunaSweeperConf, override_values
from geo_seg.sweeps.outcomes import read_outcome, run_folders
from tests.conftest import REPOSITORY

pytest.importorskip("optuna")
DEFAULTS = {key: value for key, value in vars(OptunaSweeperConf()).items() if key != "_target_"}
CHOICES = ["lr=tag(log, interval(1e-4, 1e-1))", "loss=dice,focal", "size=range(4, 17, 4)", "fixed=1"]
Score = Callable[[dict[str, str]], float | None]


class Told:
    """A launcher that computes scores instead of training."""

    def __init__(self, sweep: Path, score: Score) -> None:
        self.sweep = sweep
        self.score = score
        self.batches: list[list[dict[str, str]]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.batches.append([dict(o.split("=", 1) for o in job) for job in job_overrides])  # type: ignore[misc]
        jobs = []
        for i, (job, choices) in enumerate(zip(job_overrides, self.batches[-1], strict=True)):
            folder = self.sweep / f"{initial_job_idx + i}_job"
            hydra = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(folder)}}})
            result = JobReturn(overrides=list(job), hydra_cfg=hydra, status=JobStatus.COMPLETED)
            try:
                result.return_value = self.score(choices)
            except SweepError as error:
                result.status, result.return_value = JobStatus.FAILED, error
            jobs.append(result)
        return jobs


class NoGroups:
    """A loader of configurations without groups, of which each is the default one."""

    def load_sweep_config(self, config: DictConfig, overrides: list[str]) -> DictConfig:
        register_schemas()
        with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
            return compose("train", return_hydra_config=True)

    def get_group_options(self, group: str) -> list[str]:
        return []


def good(choices: dict[str, str]) -> float:
    """Highest at lr = 0.01 and loss = dice."""
    import math

    return 0.9 - 0.2 * abs(math.log10(float(choices["lr"])) + 2) - 0.1 * (choices["loss"] == "focal")


def search(sweep: Path, score: Score = good, choices: Sequence[str] = CHOICES, **options: object) -> Told:
    sweeper = OptunaSweeper(**{**DEFAULTS, "pruner": "none", "trials": 6, **options})  # type: ignore[arg-type]
    launcher = Told(sweep, score)
    sweeper._config = DictConfig({"mode": "train", "hydra": {"sweep": {"dir": str(sweep)}, "launcher": {}}})
    sweeper._loader = NoGroups()  # type: ignore[assignment]
    sweeper._launcher = launcher
    sweeper.sweep(list(choices))
    return launcher


def tried(launcher: Told) -> list[dict[str, str]]:
    return [choices for batch in launcher.batches for choices in batch]


def test_trials_stay_in_the_space_and_keep_what_is_fixed(tmp_path: Path) -> None:
    for choices in tried(search(tmp_path / "s", trials=12)):
        assert 1e-4 <= float(choices["lr"]) <= 1e-1
        assert choices["loss"] in {"dice", "focal"}
        assert choices["size"] in {"4", "8", "12", "16"}
        assert choices["fixed"] == "1"


def test_the_batch_and_the_number_of_trials_are_kept(tmp_path: Path) -> None:
    assert [len(batch) for batch in search(tmp_path / "s", trials=5, batch=2).batches] == [2, 2, 1]


def test_the_same_seed_proposes_the_same_and_another_seed_or_sampler_does_not(tmp_path: Path) -> None:
    first = tried(search(tmp_path / "a" / "s", trials=10))
    assert tried(search(tmp_path / "b" / "s", trials=10)) == first
    assert tried(search(tmp_path / "c" / "s", trials=10, seed=1)) != first
    assert tried(search(tmp_path / "d" / "s", trials=10, sampler="random")) != first


def test_a_guided_search_comes_closer_than_it_began(tmp_path: Path) -> None:
    scores = [good(choices) for choices in tried(search(tmp_path / "s", trials=40))]
    assert sum(scores[-10:]) / 10 > sum(scores[:5]) / 5 + 0.05
    assert max(scores) > 0.85


def test_the_choices_of_the_configuration_are_searched_too(tmp_path: Path) -> None:
    launcher = search(tmp_path / "s", choices=["fixed=1", "loss=dice"], params={"lr": "interval(0.1, 0.2)"})
    assert all(0.1 <= float(choices["lr"]) <= 0.2 for choices in tried(launcher))


def test_the_same_search_again_does_only_the_trials_that_are_missing(tmp_path: Path) -> None:
    first = tried(search(tmp_path / "sweeps" / "a", trials=3))
    second = tried(search(tmp_path / "sweeps" / "b", trials=5))
    assert len(second) == 2
    assert not [choices for choices in second if choices in first]
    outcomes = [read_outcome(folder) for folder in run_folders(tmp_path / "sweeps" / "b")]
    assert [outcome.status for outcome in outcomes] == ["reused"] * 3 + ["done"] * 2
    assert [outcome.value for outcome in outcomes] == [good(choices) for choices in first + second]
    other = search(tmp_path / "sweeps" / "c", trials=3, choices=[*CHOICES[:3], "fixed=2"])
    assert len(tried(other)) == 3


def test_trials_that_an_interruption_cut_short_are_run_again(tmp_path: Path) -> None:
    def interrupted(choices: dict[str, str]) -> float:
        calls.append(choices)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return good(choices)

    calls: list[dict[str, str]] = []
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "sweeps" / "a", interrupted, trials=4)
    again = tried(search(tmp_path / "sweeps" / "b", trials=4))
    assert len(again) == 2
    assert again[0] == calls[2]


def test_failed_and_unfit_trials_count_but_do_not_lead(tmp_path: Path) -> None:
    def score(choices: dict[str, str]) -> float | None:
        if choices["loss"] == "focal":
            return None
        if float(choices["lr"]) > 0.03:
            raise SweepError("it broke")
        return good(choices)

    with pytest.raises(SweepError, match=r"of 12 runs failed.*it broke"):
        search(tmp_path / "s", score, trials=12)
    found = [read_outcome(folder).status for folder in run_folders(tmp_path / "s")]
    assert len(found) == 12
    assert set(found) == {"done", "failed", "skipped"}


def test_a_run_below_the_median_of_the_others_is_hopeless_from_the_end_of_the_warm_up_on(
    tmp_path: Path,
) -> None:
    import optuna

    from geo_seg.sweeps.trials import should_prune

    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
    )

    def judged(name: str, scores: Sequence[float]) -> tuple[optuna.Trial, list[bool]]:
        trial, lines, said = study.ask(), ["epoch,val/miou"], []
        (tmp_path / name).mkdir()
        for epoch, score in enumerate(scores):
            lines.append(f"{epoch},{score}")
            (tmp_path / name / "metrics.csv").write_text("\n".join(lines) + "\n")
            said.append(bool(should_prune(trial, tmp_path / name)))
        return trial, said

    for name in ("a", "b"):
        trial, said = judged(name, [0.2, 0.4, 0.6, 0.7])
        assert said == [False] * 4
        study.tell(trial, 0.7)
    assert judged("better", [0.3, 0.5, 0.7, 0.8])[1] == [False] * 4
    assert judged("worse", [0.1, 0.1, 0.1, 0.1])[1] == [False, True, True, True]


class Named:
    """A loader that makes a run of a word."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def load_sweep_config(self, config: DictConfig, words: list[str]) -> DictConfig:
        self.asked.append(words[-1])
        with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
            return compose("train", words, return_hydra_config=True)


def test_a_sweep_begins_if_one_run_can_be_and_else_says_what_is_wrong_with_the_first() -> None:
    register_schemas()
    size = "dataset.batch_size={}".format
    loader: Any = Named()
    check_any_run_valid(loader, DictConfig({}), ([size(count)] for count in (0, 4, -1)))
    assert loader.asked == [size(0), size(4)]
    with pytest.raises(ConfigError, match="batch_size=0: expected 1 to 65536"):
        check_any_run_valid(loader, DictConfig({}), [[size(0)], [size(-1)]])


def test_a_search_asks_for_the_choices_and_the_ends_of_intervals() -> None:
    choices = OverridesParser.create().parse_overrides([*CHOICES, "+new=1,2"])
    words = {o.key_or_group: override_values(o) for o in choices if o.is_sweep_override()}
    assert words == {
        "lr": ["lr=0.0001", "lr=0.1"],
        "loss": ["loss=dice", "loss=focal"],
        "size": ["size=4", "size=8", "size=12", "size=16"],
        "new": ["+new=1", "+new=2"],
    }
