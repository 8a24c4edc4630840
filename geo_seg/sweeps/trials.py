"""Trials of an Optuna study: proposals, pruning, results, and resuming after an interruption."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from geo_seg.sweeps.grid_sweeper import job_folder, record_outcome
from geo_seg.sweeps.outcomes import Outcome, read_curve, read_outcome, write_outcome

_FOLDER_ATTR = "folder"  # user attribute of an ended trial: name of the folder of its run

Space = Mapping[str, Override]


def open_study(journal: Path, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """Open the study in a journal file, or create it; no other process may use the file.

    A killed process leaves the journal locked, permanently if its path was relative, and an incomplete last
    line, which makes later lines unreadable; both are removed.
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
    """Return the trials of the next batch; interrupted trials come first and keep their numbers.

    Args:
        study: the study.
        size: batch size.
        left: number of trials that remain.
    """
    trials = study.get_trials(deepcopy=False)
    interrupted = [
        optuna.Trial(study, trial._trial_id) for trial in trials if trial.state is TrialState.RUNNING
    ]
    new = min(-len(trials) % size if interrupted else size, left - len(interrupted))
    return [*interrupted, *(study.ask() for _ in range(new))]


def proposed_values(
    trial: optuna.Trial, space: Space, make_sampler: Callable[[int], optuna.samplers.BaseSampler]
) -> list[str]:
    """Return the overrides that a trial proposes, reproducibly.

    Args:
        trial: the trial.
        space: sweep overrides by key.
        make_sampler: creates a sampler from a seed; one per draw, so that interruptions change no draw.
    """
    words = []
    for dimension, (key, override) in enumerate(space.items()):
        trial.study.sampler = make_sampler(trial.number * len(space) + dimension)
        words.append(_suggest(trial, key, override))
    return words


def _suggest(trial: optuna.Trial, key: str, override: Override) -> str:
    """Return the override that a trial proposes for one key."""
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
    """Report the finished epochs of a run to its trial; return whether the pruner stops it."""
    curve = read_curve(folder)
    n_reported = trial.user_attrs.get("epochs", 0)
    if len(curve) == n_reported:
        return False
    trial.set_user_attr("epochs", len(curve))
    for epoch, value in curve[n_reported:]:
        trial.report(value, epoch)
    return trial.should_prune()


def report_trial(study: optuna.Study, trial: optuna.Trial, job: JobReturn) -> None:
    """Report the result of a trial to the study."""
    outcome = record_outcome(job)
    trial.set_user_attr(_FOLDER_ATTR, job_folder(job).name)
    trial.set_user_attr("outcome", outcome.status)
    trial.set_user_attr("overrides", list(outcome.overrides))
    if outcome.status == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    elif job.status is JobStatus.COMPLETED and outcome.value is not None and math.isfinite(outcome.value):
        study.tell(trial, outcome.value)
    else:
        study.tell(trial, state=TrialState.FAIL)


def adopt_trials(study: optuna.Study, earlier: Path, folder: Path) -> None:
    """Record the outcomes of an earlier search, continued here, in the folder of this search.

    Args:
        study: study with the trials of the earlier search.
        earlier: folder of the earlier search.
        folder: folder of this search.
    """
    for trial in study.get_trials():
        if trial.state.is_finished() and _FOLDER_ATTR in trial.user_attrs:
            name = Path(trial.user_attrs[_FOLDER_ATTR]).name
            status = trial.user_attrs["outcome"]
            outcome = Outcome(
                "reused" if status == "done" else status,
                tuple(trial.user_attrs["overrides"]),
                value=trial.value if trial.state is TrialState.COMPLETE else None,
                run=os.path.relpath(read_outcome(earlier / name).run_folder(earlier / name), folder),
            )
            write_outcome(folder / name, outcome)


def count_ended(study: optuna.Study) -> int:
    """Return the number of ended trials, without interrupted ones."""
    return sum(trial.state.is_finished() and _FOLDER_ATTR in trial.user_attrs for trial in study.get_trials())
