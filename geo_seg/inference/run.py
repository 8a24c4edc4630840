"""Maps of rasters: from the configuration of inference to finished GeoTIFFs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from geo_seg.errors import DataError
from geo_seg.inference.engines import Outcome, local, sharers, speaks, torchrun
from geo_seg.inference.inputs import find_rasters
from geo_seg.inference.mapping import Mapper
from geo_seg.inference.scoring import Scoring
from geo_seg.inference.summary import Mapped, Summary
from geo_seg.inference_config import InferenceConfig
from geo_seg.prediction.ensemble import gather
from geo_seg.report.tables import score_table
from geo_seg.writing import prepare_folder


def run(config: InferenceConfig) -> list[Mapped]:
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
    console = Console(highlight=False, quiet=not speaks(config.engine))
    output = Path(config.output)
    rasters = find_rasters(config.input, output)
    ensemble = gather(config)
    names = ensemble.first.class_names
    scoring = None if config.labels is None else Scoring(config.labels, rasters, ensemble.first)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    for note in (note for checkpoint in ensemble.checkpoints for note in checkpoint.notes):
        say(f"note: {note}")
    mapper = Mapper(config, ensemble, scoring, say, sharers(config))
    if not config.dry_run:
        prepare_folder(output)
    summary = Summary(output, names, list(rasters.values()))
    made: list[Mapped] = []
    failed = 0
    for outcome in _outcomes(config, mapper, rasters, console):
        if outcome.error is not None:
            if len(rasters) == 1:
                raise outcome.error
            failed += 1
            summary.fail(rasters[outcome.name], str(outcome.error))
            Console(stderr=True, highlight=False).print(
                f"error: {outcome.error}", markup=False, soft_wrap=True
            )
        elif outcome.mapped is None:
            summary.keep(outcome.name)
        else:
            made.append(outcome.mapped)
            summary.add(outcome.name, outcome.mapped)
            say(_line(outcome.mapped, names))
            _score(scoring, outcome, console)
    if not config.dry_run:
        _conclude(summary, scoring, output, console)
    if failed:
        raise DataError(f"{failed} of {len(rasters)} rasters were not mapped, for the reasons above")
    return made


def _outcomes(
    config: InferenceConfig, mapper: Mapper, rasters: Mapping[str, str], console: Console
) -> Iterator[Outcome]:
    if config.engine == "ray" and not config.dry_run:
        from geo_seg.inference.cluster import on_ray  # an extra

        return on_ray(mapper, rasters, console, config)
    return (torchrun if config.engine == "torchrun" else local)(mapper, rasters, console)


def _score(scoring: Scoring | None, outcome: Outcome, console: Console) -> None:
    if scoring and outcome.confusion is not None:
        console.print(score_table(scoring.add(outcome.name, outcome.confusion), outcome.name))


def _conclude(summary: Summary, scoring: Scoring | None, output: Path, console: Console) -> None:
    """Writes and shows what holds for all maps; ranks that made some for the first one have nothing."""
    summary.conclude(console)
    if scoring and scoring.total:
        scoring.write(output)
        if scoring.maps > 1:
            console.print(score_table(scoring.total, f"all {scoring.maps} maps"))


def _line(mapped: Mapped, names: Sequence[str]) -> str:
    total = int(mapped.counts.sum())
    counts = zip(names, mapped.counts.tolist(), strict=True)
    shares = [f"{name} {count / total:.1%}" for name, count in counts if count]
    parts = [", ".join(shares) or "no valid pixel"]
    if total < mapped.pixels:
        parts.append(f"{1 - total / mapped.pixels:.1%} of the raster is nodata")
    millions = mapped.pixels / 1e6
    speed = f"{millions:.2f} Mpx in {mapped.seconds:.1f} s"
    return f"{mapped.file}: {speed}; {'; '.join(parts)}"
