"""Trains a model: python train.py dataset=... model=... loss=..."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from geo_seg.cli import answer, answers
from geo_seg.config.hydra_setup import store_schemas
from geo_seg.config.run_config import configuration
from geo_seg.runtime.memory import lasting

store_schemas()


@hydra.main(version_base="1.3", config_path="config", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Checks the configuration, then trains; returns the best mean IoU of the validation scenes."""
    with answers():
        config = configuration(cfg, HydraConfig.get().overrides.task)
        from geo_seg.sweeps.jobs import instead_of_training, taken_up

        if (other := instead_of_training(config)) is not None:
            return other()
        with lasting():
            from geo_seg.training.run import run
        return run(taken_up(config), HydraConfig.get().runtime.output_dir)


if __name__ == "__main__":
    answer(main)
