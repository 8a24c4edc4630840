"""Launcher and sweepers of geo_seg, as a plugin of Hydra. Nothing heavy is imported here."""

from hydra.core.config_store import ConfigStore

from geo_seg.sweeps import grid_sweeper, optuna_sweeper, process_launcher


class ProcessLauncher(process_launcher.ProcessLauncher):
    """Launcher of launcher=process."""


class GridSweeper(grid_sweeper.GridSweeper):
    """Sweeper of sweeper=grid."""


class OptunaSweeper(optuna_sweeper.OptunaSweeper):
    """Sweeper of sweeper=optuna."""


_STORE = ConfigStore.instance()
_STORE.store(
    group="hydra/launcher", name="process", node=process_launcher.ProcessLauncherConf, provider="geo_seg"
)
_STORE.store(group="hydra/sweeper", name="grid", node=grid_sweeper.GridSweeperConf, provider="geo_seg")
_STORE.store(group="hydra/sweeper", name="search", node=optuna_sweeper.OptunaSweeperConf, provider="geo_seg")
