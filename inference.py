"""Maps rasters with a trained model: python inference.py checkpoint=... input=... output=..."""

import hydra
from omegaconf import DictConfig

from geo_seg.cli import answer, answers
from geo_seg.config.hydra_setup import store_schemas
from geo_seg.config.inference import check_inference
from geo_seg.data.first_look import look_before_mapping
from geo_seg.runtime.memory import lasting

store_schemas()


@hydra.main(version_base="1.3", config_path="config", config_name="inference")
def main(cfg: DictConfig) -> None:
    """Checks the configuration, then predicts."""
    with answers():
        config = check_inference(cfg)
        look_before_mapping(config)
        with lasting():
            from geo_seg.inference.run import run

        run(config)


if __name__ == "__main__":
    answer(main)
