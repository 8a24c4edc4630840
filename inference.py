"""Maps rasters with a trained model: python inference.py checkpoint=... input=... output=..."""

import hydra
from omegaconf import DictConfig

from geo_seg.answers import answer, answers
from geo_seg.config import store_schemas
from geo_seg.first_look import look_before_mapping
from geo_seg.inference_checks import check_inference
from geo_seg.lasting import lasting

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
