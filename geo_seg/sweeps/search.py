"""Hydra's sweeper for a guided search with Optuna: trials are asked for, run by the launcher, and told."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from geo_seg.errors import ConfigError
from geo_seg.identity import code_version
from geo_seg.sweeps.grid import begin, conclude, folder_of, record, refuse, refuse_all_wrong
from geo_seg.sweeps.launcher import ProcessLauncher
from geo_seg.sweeps.outcomes import Outcome, read_curve, write_outcome
from geo_seg.whole import write_whole

if TYPE_CHECKING:
    import optuna

_JOURNAL = "study.journal"
_IDENTITY = "study.json"
_FOLDER = "folder"  # attribute of a trial: where its run lies


@dataclass
class OptunaSweeperConf:
    """Options of the sweeper.

    Attributes:
        _target_: the sweeper.
        trials: runs in all, those of an interrupted search with the same space, data and code included.
        batch: trials that are asked for and handed to the launcher at once; null takes the slots of
            launcher=process, else 1.
        sampler: "tpe" or "random".
        pruner: "median" stops a run whose validation mean IoU is below the median of the others at the same
            epoch (launcher=process only); "none" lets all runs finish.
        startup: runs before the sampler and the pruner begin to judge.
        warmup: epochs before a run may be stopped.
        seed: of the sampler.
        params: choices beside those of the command line, as text: {optimizer.lr: "interval(1e-4, 1e-2)"}.
    """

    _target_: str = "hydra_plugins.geo_seg_sweeps.OptunaSweeper"
    trials: int = 20
    batch: int | None = None
    sampler: str = "tpe"
    pruner: str = "median"
    startup: int = 5
    warmup: int = 3
    seed: int = 0
    params: dict[str, str] | None = None


class OptunaSweeper(Sweeper):
    """Searches for the highest mean IoU on the validation scenes; see OptunaSweeperConf."""

    def __init__(
        self,
        trials: int,
        batch: int | None,
        sampler: str,
        pruner: str,
        startup: int,
        warmup: int,
        seed: int,
        params: dict[str, str] | None,
    ) -> None:
        _one_of("sampler", sampler, ("tpe", "random"))
        _one_of("pruner", pruner, ("median", "none"))
        if trials < 1 or (batch is not None and batch < 1):
            raise ConfigError(f"hydra.sweeper: trials={trials}, batch={batch}: expected 1 or more")
        self._trials = trials
        self._batch = batch
        self._sampler = sampler
        self._pruner = pruner
        self._startup = startup
        self._warmup = warmup
        self._seed = seed
        self._params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra hands over."""
        self._config = config
        self._loader = hydra_context.config_loader
        self._launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if self._pruner != "none" and not isinstance(self._launcher, ProcessLauncher):
            raise ConfigError(
                "hydra.sweeper.pruner=median stops runs of launcher=process only; with another launcher "
                "add hydra.sweeper.pruner=none"
            )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Runs the search.

        Args:
            arguments: the command line.

        Raises:
            ConfigError: a choice that can't be searched, or a start by torchrun or srun.
            SweepError: runs failed.
        """
        refuse(self._config)
        if find_spec("optuna") is None:
            raise ConfigError('sweeper=optuna: not installed; pip install "geo-seg[optuna]"')
        said = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        overrides = OverridesParser.create(self._loader).parse_overrides(said)
        space = {o.key_or_group: o for o in overrides if o.is_sweep_override()}
        if not space:
            raise ConfigError(
                "nothing to search for: add choices such as loss=dice,focal or optimizer.lr=interval(...)"
            )
        fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
        self._check_choices(space, fixed)
        folder = begin(self._config)
        study = self._study(folder, sorted(map(str, said)))
        results: list[JobReturn] = []
        size: int = getattr(self._launcher, "slots", 1) if self._batch is None else self._batch
        while (left := self._trials - _counted(study)) > 0:
            results += self._run(study, space, fixed, min(size, left))
        conclude(folder, results)
        return results

    def _check_choices(self, space: dict[str, Override], fixed: list[str]) -> None:
        """Looks at the file of every choice, and for a run that can be, before anything is written."""
        for key, override in space.items():
            if override.is_discrete_sweep() and self._loader.get_group_options(key):
                for value in override.sweep_string_iterator():
                    self._loader.load_sweep_config(self._config, [f"{key}={value}"])
        runs = ([*fixed, *words] for words in product(*map(_words, space.values())))
        refuse_all_wrong(self._loader, self._config, runs)

    def _run(
        self, study: "optuna.Study", space: dict[str, Override], fixed: list[str], count: int
    ) -> Sequence[JobReturn]:
        """Asks for trials, runs them, and tells how they ended."""
        trials = [study.ask() for _ in range(count)]
        jobs = [[*fixed, *(_suggest(trial, key, o) for key, o in space.items())] for trial in trials]
        first = trials[0].number
        if self._pruner != "none":
            self._launcher.stop = lambda folder, number: _is_hopeless(trials[number - first], folder)
        results: Sequence[JobReturn] = self._launcher.launch(jobs, initial_job_idx=first)
        for trial, job in zip(trials, results, strict=True):
            _tell(study, trial, job)
        return results

    def _study(self, folder: Path, said: list[str]) -> "optuna.Study":
        """Goes on with the newest search of the same kind in this folder or beside it, or begins one."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        identity = self._identity(said)
        earlier = next(
            (
                file.parent
                for file in sorted(folder.parent.glob(f"*/{_IDENTITY}"), key=os.path.getmtime, reverse=True)
                if file.read_text(encoding="utf-8") == identity
            ),
            None,
        )
        journal = folder / _JOURNAL
        if earlier is not None and earlier.resolve() != folder.resolve():
            shutil.copyfile(earlier / _JOURNAL, journal)
        elif earlier is None:
            journal.unlink(missing_ok=True)
        write_whole(folder / _IDENTITY, identity)
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
            study_name="geo_seg",
            direction="maximize",
            load_if_exists=True,
            pruner=self._make_pruner(),
        )
        study.sampler = self._make_sampler(len(study.get_trials()))
        _take_over(study, folder)
        return study

    def _identity(self, said: list[str]) -> str:
        """What two searches share that may go on with each other: the choices and the code."""
        words = [*said, self._sampler, str(self._seed), code_version()]
        return json.dumps({"search": hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]})

    def _make_sampler(self, known: int) -> Any:
        import optuna

        seed = self._seed + known  # or a search that goes on would propose what it has proposed before
        if self._sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._startup, constant_liar=True)

    def _make_pruner(self) -> Any:
        import optuna

        if self._pruner == "none":
            return optuna.pruners.NopPruner()
        return optuna.pruners.MedianPruner(n_startup_trials=self._startup, n_warmup_steps=self._warmup)


def _words(override: Override) -> list[str]:
    """The overrides that a choice allows; of an interval its ends."""
    choice = override.value()
    ends = [choice.start, choice.end] if isinstance(choice, IntervalSweep) else None
    return [f"{override.get_key_element()}={value}" for value in ends or override.sweep_string_iterator()]


def _suggest(trial: "optuna.Trial", key: str, override: Override) -> str:
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


def _is_hopeless(trial: "optuna.Trial", folder: Path) -> bool:
    """Reports the epochs that a run has finished, and asks the pruner about it."""
    curve = read_curve(folder)
    known = trial.user_attrs.get("epochs", 0)
    for epoch, value in curve[known:]:
        trial.report(value, epoch)
    if len(curve) == known:
        return False
    trial.set_user_attr("epochs", len(curve))
    return trial.should_prune()


def _tell(study: "optuna.Study", trial: "optuna.Trial", job: JobReturn) -> None:
    from optuna.trial import TrialState

    outcome = record(job)
    trial.set_user_attr(_FOLDER, str(folder_of(job)))
    trial.set_user_attr("outcome", outcome.status)
    trial.set_user_attr("overrides", list(outcome.overrides))
    if outcome.status == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    elif job.status is JobStatus.COMPLETED and outcome.value is not None and math.isfinite(outcome.value):
        study.tell(trial, outcome.value)
    else:
        study.tell(trial, state=TrialState.FAIL)


def _take_over(study: "optuna.Study", folder: Path) -> None:
    """Brings the trials of an interrupted search into this one; those that hadn't ended are run again."""
    from optuna.trial import TrialState

    for trial in study.get_trials():
        if trial.state is TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        place = trial.user_attrs.get(_FOLDER)
        if place and Path(place).parent.resolve() != folder.resolve():
            outcome = Outcome(
                "reused" if trial.user_attrs["outcome"] == "done" else trial.user_attrs["outcome"],
                tuple(trial.user_attrs["overrides"]),
                value=trial.value if trial.state is TrialState.COMPLETE else None,
                run=os.path.relpath(place, folder),
            )
            write_outcome(folder / Path(place).name, outcome)


def _counted(study: "optuna.Study") -> int:
    """Trials that have ended; one that an interruption cut short doesn't count."""
    return sum(trial.state.is_finished() and _FOLDER in trial.user_attrs for trial in study.get_trials())


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"hydra.sweeper.{key}={value}: expected one of {', '.join(choices)}")
