"""Maps of rasters: from the configuration of inference to finished GeoTIFFs."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from geo_seg.config.hydra_setup import this_command
from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import DataError
from geo_seg.inference.engines.local import MapResult, is_main_process, processes_per_host, run_local
from geo_seg.inference.engines.torchrun import run_torchrun
from geo_seg.inference.inputs import find_rasters
from geo_seg.inference.mapper import Mapper
from geo_seg.inference.reference_labels import LabelComparison
from geo_seg.inference.summary import MapRecord, Summary
from geo_seg.prediction.ensemble import load_ensemble
from geo_seg.raster.writer import ensure_writable
from geo_seg.report.tables import score_table
from geo_seg.runtime.lock import maps_lock
from geo_seg.vectorize.geopackage import prove_geopackages


def run(config: InferenceConfig) -> list[MapRecord]:
    """Maps every raster of the input; one that fails doesn't stop the others.

    Args:
        config: what to do, checked.

    Returns:
        The maps that were made, in the order in which they were done; those that were skipped are not in
        it. Of several ranks, the first returns them all.

    Raises:
        ConfigError: the configuration doesn't fit the model or the machine.
        CheckpointError: there is no model in the checkpoint.
        DataError: there is nothing to map, nothing can be written, or a raster failed.
    """
    console = Console(highlight=False, quiet=not is_main_process(config.engine))
    output = Path(config.output)
    rasters = find_rasters(config.input, output)
    ensemble = load_ensemble(config)
    names = ensemble.first.class_names
    scoring = None if config.labels is None else LabelComparison(config.labels, rasters, ensemble.first)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    for note in (note for checkpoint in ensemble.checkpoints for note in checkpoint.notes):
        say(f"note: {note}")
    mapper = Mapper(config, ensemble, scoring, say, processes_per_host(config))
    summary = Summary(output, names, list(rasters.values()), dry=config.dry_run)
    made: list[MapRecord] = []
    failed = 0
    with _held(config, output, rasters), _explained(config, rasters, made, say):
        for outcome in _outcomes(config, mapper, rasters, console):
            if outcome.error is not None and len(rasters) == 1:
                raise outcome.error
            failed += outcome.error is not None
            if outcome.made is not None and not outcome.made.earlier:
                made.append(outcome.made.mapped)
                say(_line(outcome.made.mapped, names))
            _take_in(outcome, rasters[outcome.name], summary, scoring, console)
        if config.dry_run:
            mapper.forecast(console)
        else:
            _conclude(summary, scoring, output, console)
            _warn(made)
        if failed:
            raise DataError(f"{failed} of {len(rasters)} rasters were not mapped, for the reasons above")
        if is_main_process(config.engine):
            mapper.forget(rasters)
    return made


def _held(config: InferenceConfig, output: Path, rasters: Mapping[str, str]) -> AbstractContextManager[None]:
    """Makes the folder of the maps, and holds them there; ranks do it through the first one."""
    if config.dry_run:
        return nullcontext()
    ensure_writable(output)
    if config.polygons:
        prove_geopackages(output)
    return maps_lock(output, list(rasters)) if is_main_process(config.engine) else nullcontext()


@contextmanager
def _explained(
    config: InferenceConfig, rasters: Sized, made: Sized, say: Callable[[str], None]
) -> Iterator[None]:
    """Says how to go on when whoever started it stops it."""
    try:
        yield
    except KeyboardInterrupt:
        if not config.dry_run:
            done = f"stopped; {len(made)} of {len(rasters)} maps were made"
            line = " the same command" if config.engine == "torchrun" else f"\n{this_command()}"
            say(f"{done}; go on with{line}")
        raise


def _outcomes(
    config: InferenceConfig, mapper: Mapper, rasters: Mapping[str, str], console: Console
) -> Iterator[MapResult]:
    if config.engine == "ray" and not config.dry_run:
        from geo_seg.inference.engines.ray_engine import run_ray

        return run_ray(mapper, rasters, console, config)
    return (run_torchrun if config.engine == "torchrun" else run_local)(mapper, rasters, console)


def _take_in(
    outcome: MapResult, raster: str, summary: Summary, scoring: LabelComparison | None, console: Console
) -> None:
    if outcome.error is not None:
        summary.fail(raster, str(outcome.error))
        said = f"error: {outcome.error}"
        Console(stderr=True, highlight=False).print(said, markup=False, soft_wrap=True)
    elif outcome.made is None:
        summary.add_skipped(outcome.name)
    else:
        summary.add(outcome.name, outcome.made.mapped)
        if scoring and outcome.made.confusion is not None:
            console.print(score_table(scoring.add(outcome.name, outcome.made.confusion), outcome.name))
    summary.keep_up()


def _conclude(summary: Summary, scoring: LabelComparison | None, output: Path, console: Console) -> None:
    """Writes and shows what holds for all maps; ranks that made some for the first one have nothing."""
    summary.conclude(console)
    if scoring and scoring.total:
        scoring.write(output)
        if scoring.maps > 1:
            console.print(score_table(scoring.total, f"all {scoring.maps} maps"))


def _warn(made: Sequence[MapRecord]) -> None:
    """Says again which maps are not to be trusted, where all that scrolled by has an end."""
    console = Console(stderr=True, highlight=False)
    for mapped in made:
        if mapped.warning:
            text = f"WARNING: {mapped.source}: {mapped.warning}"
            console.print(text, style="bold red", markup=False, soft_wrap=True)


def _line(mapped: MapRecord, names: Sequence[str]) -> str:
    total = int(mapped.counts.sum())
    counts = zip(names, mapped.counts.tolist(), strict=True)
    shares = [f"{name} {count / total:.1%}" for name, count in counts if count]
    parts = [", ".join(shares) or "no valid pixel"]
    if total < mapped.pixels:
        parts.append(f"{1 - total / mapped.pixels:.1%} of the raster is nodata")
    millions = mapped.pixels / 1e6
    speed = f"{millions:.2f} Mpx in {mapped.seconds:.1f} s"
    return f"{mapped.file}: {speed}; {'; '.join(parts)}"
