"""Job of `geo_seg train`; Hydra names the log of a run by this file."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from geo_seg.cli import report_errors
from geo_seg.config.run_config import resolve_config


def train(cfg: DictConfig) -> float | None:
    """Check the configuration, then train; return the best mean IoU of the validation scenes."""
    with report_errors():
        config = resolve_config(cfg, HydraConfig.get().overrides.task)
        from geo_seg.modes import dispatch

        return dispatch(config, Path(HydraConfig.get().runtime.output_dir))
