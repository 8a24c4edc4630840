"""Map rasters with a trained model: python inference.py checkpoint=... input=... output=..."""

import hydra
from omegaconf import DictConfig

from geo_seg.cli import report_errors, run_main
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.inference import parse_inference_config
from geo_seg.data.first_look import look_before_mapping
from geo_seg.runtime.memory import gc_frozen

register_schemas()


@hydra.main(version_base="1.3", config_path="config", config_name="inference")
def main(cfg: DictConfig) -> None:
    """Check the configuration, then predict."""
    with report_errors():
        config = parse_inference_config(cfg)
        look_before_mapping(config)
        with gc_frozen():
            from geo_seg.inference.run import run

        run(config)


if __name__ == "__main__":
    run_main(main)
