"""Mutates metrics, losses and the Lightning module at random places, and counts the mutants that tests kill.

    python benchmarks/mutants.py [--count 150] [--seed 0] [--workers 2] [--only geo_seg/metrics]

Each mutant is one change of cosmic-ray (an operator, a constant, a condition) in a copy of the repository, in
which the tests of that file run until one fails; as many are tried in each of the three. Unions (`|`) stay
as they are: most are in annotations, which fail on import. Prints a Markdown table and the difference of
every survivor. `make mutants` installs cosmic-ray, an extra, first.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.work_item import MutationSpec, TestOutcome

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = {  # of what is mutated, by folder or file
    "geo_seg/metrics": (
        *("tests/unit/test_metrics.py", "tests/unit/test_calibration.py", "tests/unit/test_intervals.py"),
        *(
            "tests/unit/test_boundary.py",
            "tests/end_to_end/test_extending.py",
            "tests/end_to_end/test_scores.py",
        ),
    ),
    "losses": ("tests/contract",),
    "geo_seg/training/module.py": (
        *("tests/unit/test_rates.py", "tests/end_to_end/test_training.py"),
        *("tests/end_to_end/test_training_choices.py", "tests/end_to_end/test_scores.py"),
    ),
}
_COPIED = ("geo_seg", "losses", "tests", "config", "benchmarks", "experiment", "docs", "hydra_plugins")
_TIMEOUT = 900.0  # seconds; a mutant that runs for ever is killed


def mutations(target: str) -> list[MutationSpec]:
    """Return every mutation of the files of a target; paths are relative to the repository."""
    root = REPOSITORY / target
    found = []
    for path in [root] if root.suffix else sorted(root.rglob("*.py")):
        tree = get_ast_from_path(path)
        for name in operator_names():
            operator_class = get_operator(name)
            if operator_class.arguments() or "BinaryOperator_BitOr_" in name:
                continue
            operator = operator_class()
            places = (place for node in ast_nodes(tree) for place in operator.mutation_positions(node))
            relative = path.relative_to(REPOSITORY).as_posix()
            found += [
                MutationSpec(
                    module_path=relative,
                    operator_name=name,
                    operator_args={},
                    occurrence=number,
                    start_pos=start,
                    end_pos=end,
                )
                for number, (start, end) in enumerate(places)
            ]
    return found


def enter_copy(folder: str) -> None:
    """Work in a copy of the repository from now on; one for each process."""
    copy = Path(tempfile.mkdtemp(dir=folder))
    for name in _COPIED:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy2(path, copy)
    os.chdir(copy)
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def outcome(mutation: MutationSpec, tests: Sequence[str]) -> tuple[MutationSpec, TestOutcome, str]:
    """Return how the tests of a mutant ended, and its difference."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-o", "addopts=", "-m", '"not slow"', *tests]
    result = mutate_and_test([mutation], " ".join(command), _TIMEOUT)
    return mutation, result.test_outcome, str(result.diff)


def main() -> None:
    """Try a sample of the mutants, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--only", nargs="+", choices=TESTS, default=[*TESTS])
    options = parser.parse_args()
    chance, share = random.Random(options.seed), options.count // len(options.only)
    sample = [(m, target) for target in options.only for m in chance.sample(mutations(target), share)]
    killed: Counter[str] = Counter()
    survivors = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(options.workers, initializer=enter_copy, initargs=(folder,)) as pool,
    ):
        tries = [(target, pool.submit(outcome, mutation, TESTS[target])) for mutation, target in sample]
        for target, attempt in tries:
            mutation, ended, difference = attempt.result()
            killed[target] += ended is not TestOutcome.SURVIVED
            if ended is TestOutcome.SURVIVED:
                survivors.append((mutation, difference))
            print(
                f"{mutation.module_path} {mutation.operator_name}: {ended.value}", file=sys.stderr, flush=True
            )
    print("| mutated | mutants | killed |\n|---|---|---|")
    for target, tried in Counter(target for _, target in sample).items():
        print(f"| {target} | {tried} | {killed[target]} ({killed[target] / tried:.0%}) |")
    for mutation, difference in survivors:
        print(f"\nsurvived: {mutation.module_path} line {mutation.start_pos[0]}\n{difference}")


if __name__ == "__main__":
    main()
