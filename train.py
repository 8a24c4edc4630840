"""Train a model: python train.py dataset=... model=... loss=..."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from geo_seg.cli import report_errors, run_main
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.run_config import resolve_config

register_schemas()


@hydra.main(version_base="1.3", config_path="config", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Check the configuration, then train; return the best mean IoU of the validation scenes."""
    with report_errors():
        config = resolve_config(cfg, HydraConfig.get().overrides.task)
        from geo_seg.modes import dispatch

        return dispatch(config, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    run_main(main)
