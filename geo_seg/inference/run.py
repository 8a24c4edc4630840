"""An inference run: from its configuration to finished maps, scores and a summary."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import DataError
from geo_seg.inference.engines.local import MapResult, is_main_process, processes_per_host, run_local
from geo_seg.inference.engines.torchrun import run_torchrun
from geo_seg.inference.inputs import find_rasters
from geo_seg.inference.mapper import Mapper
from geo_seg.inference.products.product import Product
from geo_seg.inference.reference_labels import LabelComparison
from geo_seg.inference.summary import MapRecord, Summary
from geo_seg.prediction.ensemble import load_ensemble
from geo_seg.raster.writer import ensure_writable
from geo_seg.report.tables import score_table
from geo_seg.runtime.lock import maps_lock
from geo_seg.runtime.program import typed_here


def run(config: InferenceConfig) -> list[MapRecord]:
    """Map every input raster; a raster that fails doesn't stop the others.

    Args:
        config: checked configuration of inference.

    Returns:
        Records of the maps made by this run, in order of completion, without skipped ones. With several
        ranks, rank 0 returns all of them.

    Raises:
        ConfigError: the configuration doesn't fit the model or the machine.
        CheckpointError: a checkpoint holds no model.
        DataError: no raster is found, the output can't be written, or a raster failed.
    """
    console = Console(highlight=False, quiet=not is_main_process(config.engine))
    output = Path(config.output)
    rasters = find_rasters(config.input, output)
    ensemble = load_ensemble(config)
    names = ensemble.first.class_names
    comparison = None if config.labels is None else LabelComparison(config.labels, rasters, ensemble.first)

    def notify(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    for note in (note for checkpoint in ensemble.checkpoints for note in checkpoint.notes):
        notify(f"note: {note}")
    mapper = Mapper(config, ensemble, comparison, notify, processes_per_host(config))
    summary = Summary(output, names, list(rasters.values()), dry=config.dry_run)
    maps: list[MapRecord] = []
    failed = 0
    with _lock_output(config, output, rasters, mapper.products), _resume_hint(config, rasters, maps, notify):
        for result in _run_engine(config, mapper, rasters, console):
            if result.error is not None and len(rasters) == 1:
                raise result.error
            failed += result.error is not None
            if result.finished is not None and not result.finished.from_earlier_run:
                maps.append(result.finished.record)
                notify(_describe(result.finished.record, names))
            _record_result(result, rasters[result.name], summary, comparison, console)
        if config.dry_run:
            mapper.forecast(console)
        else:
            _write_totals(summary, comparison, output, console)
            _warn(maps)
        if failed:
            raise DataError(f"{failed} of {len(rasters)} rasters were not mapped, for the reasons above")
        if is_main_process(config.engine):
            mapper.discard_records(rasters)
    return maps


def _lock_output(
    config: InferenceConfig, output: Path, rasters: Mapping[str, str], products: Sequence[Product]
) -> AbstractContextManager[None]:
    """Create the output folder and return a lock on the maps in it, which rank 0 holds for all ranks."""
    if config.dry_run:
        return nullcontext()
    ensure_writable(output)
    for product in products:
        product.prepare(output)
    return maps_lock(output, list(rasters)) if is_main_process(config.engine) else nullcontext()


@contextmanager
def _resume_hint(
    config: InferenceConfig, rasters: Sized, maps: Sized, notify: Callable[[str], None]
) -> Iterator[None]:
    """Print the command that resumes the run when it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        if not config.dry_run:
            done = f"stopped; {len(maps)} of {len(rasters)} maps were made"
            line = " the same command" if config.engine == "torchrun" else f"\n{typed_here()}"
            notify(f"{done}; resume with{line}")
        raise


def _run_engine(
    config: InferenceConfig, mapper: Mapper, rasters: Mapping[str, str], console: Console
) -> Iterator[MapResult]:
    if config.engine == "ray" and not config.dry_run:
        from geo_seg.inference.engines.ray_engine import run_ray

        return run_ray(mapper, rasters, console, config)
    return (run_torchrun if config.engine == "torchrun" else run_local)(mapper, rasters, console)


def _record_result(
    result: MapResult, raster: str, summary: Summary, comparison: LabelComparison | None, console: Console
) -> None:
    if result.error is not None:
        summary.fail(raster, str(result.error))
        message = f"error: {result.error}"
        Console(stderr=True, highlight=False).print(message, markup=False, soft_wrap=True)
    elif result.finished is None:
        summary.add_skipped(result.name)
    else:
        summary.add(result.name, result.finished.record)
        if comparison and result.finished.confusion is not None:
            console.print(score_table(comparison.add(result.name, result.finished.confusion), result.name))
    summary.write_if_due()


def _write_totals(
    summary: Summary, comparison: LabelComparison | None, output: Path, console: Console
) -> None:
    """Write and print summary and total scores; on ranks other than 0 there is nothing to write."""
    summary.write(console)
    if comparison and comparison.total:
        comparison.write(output)
        if comparison.maps > 1:
            console.print(score_table(comparison.total, f"all {comparison.maps} maps"))


def _warn(maps: Sequence[MapRecord]) -> None:
    """Repeat the warnings about maps at the end of the output."""
    console = Console(stderr=True, highlight=False)
    for record in maps:
        if record.warning:
            text = f"WARNING: {record.source}: {record.warning}"
            console.print(text, style="bold red", markup=False, soft_wrap=True)


def _describe(record: MapRecord, names: Sequence[str]) -> str:
    total = int(record.counts.sum())
    counts = zip(names, record.counts.tolist(), strict=True)
    shares = [f"{name} {count / total:.1%}" for name, count in counts if count]
    parts = [", ".join(shares) or "no valid pixel"]
    if total < record.pixels:
        parts.append(f"{1 - total / record.pixels:.1%} of the raster is nodata")
    millions = record.pixels / 1e6
    speed = f"{millions:.2f} Mpx in {record.seconds:.1f} s"
    return f"{record.file}: {speed}; {'; '.join(parts)}"
