"""The trials of a search: what they propose, how they end, and how they go on after an interruption."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from geo_seg.sweeps.grid_sweeper import job_folder, record_outcome
from geo_seg.sweeps.outcomes import Outcome, read_curve, read_outcome, write_outcome

_FOLDER = "folder"  # attribute of a trial that has ended: name of its run's folder

Space = Mapping[str, Override]


def open_study(journal: Path, pruner: Any) -> optuna.Study:
    """The study that a journal holds, or a new one; the journal must be nobody else's.

    A process that is killed leaves the journal locked, for ever if its path was relative, and half a line at
    its end, behind which nothing can be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = journal.absolute()
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if journal.exists():
        os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
        study_name="geo_seg",
        direction="maximize",
        load_if_exists=True,
        pruner=pruner,
    )


def next_trials(study: optuna.Study, size: int, left: int) -> list[optuna.Trial]:
    """The trials of the next batch: those that an interruption cut short go on, under their own numbers.

    Args:
        study: the search.
        size: of a batch.
        left: trials that the search may still end.
    """
    known = study.get_trials(deepcopy=False)
    broken = [optuna.Trial(study, found._trial_id) for found in known if found.state is TrialState.RUNNING]
    new = min(-len(known) % size if broken else size, left - len(broken))
    return [*broken, *(study.ask() for _ in range(new))]


def proposed_values(trial: optuna.Trial, space: Space, sampler: Callable[[int], Any]) -> list[str]:
    """The overrides that a trial proposes; the same ones if it is asked again.

    Args:
        trial: the trial.
        space: the choices, by key.
        sampler: makes one of a seed. Each draw has its own, so that an interruption changes none of them.
    """
    words = []
    for place, (key, override) in enumerate(space.items()):
        trial.study.sampler = sampler(trial.number * len(space) + place)
        words.append(_suggest(trial, key, override))
    return words


def _suggest(trial: optuna.Trial, key: str, override: Override) -> str:
    """The override that a trial proposes for one key."""
    choice = override.value()
    prefix = override.get_key_element()
    if isinstance(choice, IntervalSweep):
        low, high = choice.start, choice.end
        log = "log" in choice.tags
        if isinstance(low, int) and isinstance(high, int):
            return f"{prefix}={trial.suggest_int(key, low, high, log=log)}"
        return f"{prefix}={trial.suggest_float(key, float(low or 0), float(high or 0), log=log)!r}"
    values = list(override.sweep_string_iterator())
    if isinstance(choice, RangeSweep) and all(float(value).is_integer() for value in values):
        step = int(float(values[1]) - float(values[0])) if len(values) > 1 else 1
        return f"{prefix}={trial.suggest_int(key, int(float(values[0])), int(float(values[-1])), step=step)}"
    return f"{prefix}={trial.suggest_categorical(key, values)}"


def should_prune(trial: optuna.Trial, folder: Path) -> bool:
    """Reports the epochs that a run has finished, and asks the pruner about it."""
    curve = read_curve(folder)
    known = trial.user_attrs.get("epochs", 0)
    if len(curve) == known:
        return False
    trial.set_user_attr("epochs", len(curve))
    for epoch, value in curve[known:]:
        trial.report(value, epoch)
    return trial.should_prune()


def report_trial(study: optuna.Study, trial: optuna.Trial, job: JobReturn) -> None:
    """Tells the search how the run of a trial ended."""
    outcome = record_outcome(job)
    trial.set_user_attr(_FOLDER, job_folder(job).name)
    trial.set_user_attr("outcome", outcome.status)
    trial.set_user_attr("overrides", list(outcome.overrides))
    if outcome.status == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    elif job.status is JobStatus.COMPLETED and outcome.value is not None and math.isfinite(outcome.value):
        study.tell(trial, outcome.value)
    else:
        study.tell(trial, state=TrialState.FAIL)


def adopt_trials(study: optuna.Study, earlier: Path, folder: Path) -> None:
    """Names the runs of an earlier search, whose study goes on here, in this search's folder.

    Args:
        study: with the trials of the earlier search.
        earlier: its folder.
        folder: of this search.
    """
    for trial in study.get_trials():
        if trial.state.is_finished() and _FOLDER in trial.user_attrs:
            name = Path(trial.user_attrs[_FOLDER]).name
            found = trial.user_attrs["outcome"]
            outcome = Outcome(
                "reused" if found == "done" else found,
                tuple(trial.user_attrs["overrides"]),
                value=trial.value if trial.state is TrialState.COMPLETE else None,
                run=os.path.relpath(read_outcome(earlier / name).place(earlier / name), folder),
            )
            write_outcome(folder / name, outcome)


def count_ended(study: optuna.Study) -> int:
    """Trials that have ended; one that an interruption cut short doesn't count."""
    return sum(trial.state.is_finished() and _FOLDER in trial.user_attrs for trial in study.get_trials())
