"""Jobs under Hydra: composition of the configuration from the words of the command line."""

from collections.abc import Callable, Sequence
from typing import NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from omegaconf import DictConfig

from geo_seg.cli import run_main
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.yaml_files import search_user_folders
from geo_seg.errors import ConfigError
from geo_seg.runtime.program import config_dir


def run_job(job: Callable[[DictConfig], object], config_name: str, words: Sequence[str]) -> NoReturn:
    """Run a job as under @hydra.main, and exit.

    Unlike there, the words of the command line may be others than `sys.argv`: processes that Lightning starts
    repeat that, with the name of the command.

    Args:
        job: called with the composed configuration.
        config_name: YAML file that the composition begins with, without its suffix.
        words: of the command line, after the name of the command.
    """
    register_schemas()
    version.setbase("1.3")

    def compose_and_run(all_words: list[str]) -> None:
        parser = get_args_parser()
        flags = parser.parse_intermixed_args(all_words)  # choices may stand on both sides of a flag
        if flags.experimental_rerun is not None:
            raise ConfigError("--experimental-rerun: expected rerun=<run folder>, which repeats a run")
        search_user_folders(flags.config_dir)
        _run_hydra(
            args=flags,
            args_parser=parser,
            task_function=job,
            config_path=str(config_dir()),
            config_name=config_name,
        )

    run_main(compose_and_run, words)
