"""Hydra sweeper for a guided search with Optuna (ask and tell)."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from geo_seg.errors import ConfigError, missing_extra
from geo_seg.run_folder import code_hash
from geo_seg.runtime.files import atomic_write
from geo_seg.sweeps.grid_sweeper import check_any_run_valid, check_sweep_allowed, finish_sweep, start_sweep
from geo_seg.sweeps.process_launcher import ProcessLauncher

if TYPE_CHECKING:
    import optuna

    from geo_seg.sweeps.trials import Space

_JOURNAL = "study.journal"
_IDENTITY = "study.json"


@dataclass
class OptunaSweeperConf:
    """Options of the sweeper.

    Attributes:
        _target_: the sweeper.
        trials: total number of runs, including those of an interrupted search with the same space, data and
            code.
        batch: trials per launch; null takes the slots of launcher=process, else 1.
        sampler: "tpe" or "random".
        pruner: "median" stops a run whose validation mean IoU is below the median of the others at the same
            epoch (launcher=process only); "none" lets all runs finish.
        startup: random runs before sampler and pruner use results.
        warmup: epochs before a run may be pruned.
        seed: seed of the sampler.
        params: additional choices, as text: {optimizer.lr: "interval(1e-4, 1e-2)"}.
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
    """Sweeper that maximizes the validation mean IoU, see OptunaSweeperConf."""

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
        _check_choice("sampler", sampler, ("tpe", "random"))
        _check_choice("pruner", pruner, ("median", "none"))
        if trials < 1 or (batch is not None and batch < 1):
            raise ConfigError(f"hydra.sweeper: trials={trials}, batch={batch}: expected 1 or more")
        if seed < 0:
            raise ConfigError(f"hydra.sweeper.seed={seed}: expected 0 or more")
        self._trials = trials
        self._batch = batch
        self._sampler = sampler
        self._pruner = pruner
        self._startup = startup
        self._warmup = warmup
        self._seed = seed
        self._params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the context of Hydra and create the launcher."""
        self._config = config
        self._loader = hydra_context.config_loader
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if self._pruner != "none" and not isinstance(self._launcher, ProcessLauncher):
            raise ConfigError(
                "hydra.sweeper.pruner=median stops runs of launcher=process only; with another launcher "
                "add hydra.sweeper.pruner=none"
            )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the search.

        Args:
            arguments: overrides of the command line.

        Raises:
            ConfigError: a choice can't be searched, or torchrun or srun started the sweep.
            SweepError: runs failed.
        """
        check_sweep_allowed(self._config)
        if find_spec("optuna") is None:
            raise ConfigError(f"sweeper=optuna: {missing_extra('optuna')}")
        overrides_text = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        overrides = OverridesParser.create(self._loader).parse_overrides(overrides_text)
        space = {o.key_or_group: o for o in overrides if o.is_sweep_override()}
        if not space:
            raise ConfigError(
                "nothing to search for: add choices such as loss=dice,focal or optimizer.lr=interval(...)"
            )
        fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
        self._check_choices(space, fixed)
        from geo_seg.sweeps.trials import count_ended

        results: list[JobReturn] = []
        with start_sweep(self._config) as folder:
            study = self._open_study(
                folder, [*overrides_text, *(str(override_values(choice)) for choice in space.values())]
            )
            while (left := self._trials - count_ended(study)) > 0:
                results += self._run_batch(study, space, fixed, left)
            finish_sweep(folder, results)
        return results

    def _check_choices(self, space: "Space", fixed: list[str]) -> None:
        """Load the config file of every choice and find a valid run, before anything is written."""
        groups = [word for word in fixed if self._loader.get_group_options(word.lstrip("+").split("=")[0])]
        for key, override in space.items():
            if override.is_discrete_sweep() and self._loader.get_group_options(key):
                for value in override.sweep_string_iterator():
                    self._loader.load_sweep_config(self._config, [*groups, f"{key}={value}"])
        runs = ([*fixed, *words] for words in product(*map(override_values, space.values())))
        check_any_run_valid(self._loader, self._config, runs)

    def _run_batch(
        self, study: "optuna.Study", space: "Space", fixed: list[str], left: int
    ) -> Sequence[JobReturn]:
        """Ask for trials, run them, and report their results."""
        from geo_seg.sweeps.trials import next_trials, proposed_values, report_trial, should_prune

        size: int = getattr(self._launcher, "slots", 1) if self._batch is None else self._batch
        trials = next_trials(study, size, left)
        jobs = [[*fixed, *proposed_values(trial, space, self._make_sampler)] for trial in trials]
        first = trials[0].number
        if self._pruner != "none":
            launcher = cast(ProcessLauncher, self._launcher)  # setup has checked it
            launcher.stop = lambda folder, number: should_prune(trials[number - first], folder)
        results: Sequence[JobReturn] = self._launcher.launch(jobs, initial_job_idx=first)
        for trial, job in zip(trials, results, strict=True):
            report_trial(study, trial, job)
        return results

    def _open_study(self, folder: Path, choices: list[str]) -> "optuna.Study":
        """Continue the newest identical search in this folder or beside it, or start a new one."""
        from geo_seg.sweeps.trials import adopt_trials, open_study

        identity = self._identity(choices)
        earlier = next(
            (
                file.parent
                for file in sorted(folder.parent.glob(f"*/{_IDENTITY}"), key=os.path.getmtime, reverse=True)
                if file.read_text(encoding="utf-8") == identity
            ),
            None,
        )
        journal = folder / _JOURNAL
        is_other_folder = earlier is not None and earlier.resolve() != folder.resolve()
        if earlier is None or is_other_folder:  # files here belong to another search
            (folder / _IDENTITY).unlink(missing_ok=True)
            journal.unlink(missing_ok=True)
        if earlier is not None and is_other_folder and (earlier / _JOURNAL).exists():
            shutil.copyfile(earlier / _JOURNAL, journal)
        study = open_study(journal, self._make_pruner())
        if earlier is not None and is_other_folder:
            adopt_trials(study, earlier, folder)
        atomic_write(folder / _IDENTITY, identity)
        return study

    def _identity(self, choices: list[str]) -> str:
        """Return a JSON hash of choices, sampler, seed and code; equal for searches that can be continued."""
        words = [*sorted(choices), self._sampler, str(self._seed), code_hash()]
        return json.dumps({"search": hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]})

    def _make_sampler(self, draw: int) -> "optuna.samplers.BaseSampler":
        """Return the sampler of a single draw, which depends on its number and the trials so far only."""
        import numpy as np
        import optuna

        seed = int(np.random.SeedSequence((self._seed, draw)).generate_state(1)[0])
        if self._sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._startup, constant_liar=True)

    def _make_pruner(self) -> "optuna.pruners.BasePruner":
        import optuna

        if self._pruner == "none":
            return optuna.pruners.NopPruner()
        return optuna.pruners.MedianPruner(n_startup_trials=self._startup, n_warmup_steps=self._warmup)


def override_values(override: Override) -> list[str]:
    """Return the overrides that a choice allows; for an interval its ends."""
    choice = override.value()
    ends = [choice.start, choice.end] if isinstance(choice, IntervalSweep) else None
    return [f"{override.get_key_element()}={value}" for value in ends or override.sweep_string_iterator()]


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"hydra.sweeper.{key}={value}: expected one of {', '.join(choices)}")
