"""Launcher and sweepers of geo_seg, as a plugin of Hydra. Nothing heavy is imported here."""

from hydra.core.config_store import ConfigStore

from geo_seg.sweeps import grid_sweeper as grid
from geo_seg.sweeps import optuna_sweeper as search
from geo_seg.sweeps import process_launcher as launcher


class ProcessLauncher(launcher.ProcessLauncher):
    """Launcher of launcher=process."""


class GridSweeper(grid.GridSweeper):
    """Sweeper of sweeper=grid."""


class OptunaSweeper(search.OptunaSweeper):
    """Sweeper of sweeper=optuna."""


_STORE = ConfigStore.instance()
_STORE.store(group="hydra/launcher", name="process", node=launcher.ProcessLauncherConf, provider="geo_seg")
_STORE.store(group="hydra/sweeper", name="grid", node=grid.GridSweeperConf, provider="geo_seg")
_STORE.store(group="hydra/sweeper", name="search", node=search.OptunaSweeperConf, provider="geo_seg")
