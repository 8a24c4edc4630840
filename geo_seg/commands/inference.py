"""Job of `geo_seg predict`; Hydra names the job by this file."""

from omegaconf import DictConfig

from geo_seg.cli import report_errors
from geo_seg.config.inference import parse_inference_config
from geo_seg.data.first_look import look_before_mapping
from geo_seg.runtime.memory import gc_frozen


def predict(cfg: DictConfig) -> None:
    """Check the configuration, then predict."""
    with report_errors():
        config = parse_inference_config(cfg)
        look_before_mapping(config)
        with gc_frozen():
            from geo_seg.inference.run import run

        run(config)
