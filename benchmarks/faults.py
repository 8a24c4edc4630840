"""Runs the tests of faults that were once seen and prints a table: example, neighbours tried, held.

    python benchmarks/faults.py [--kind checkpoint] [--quick] [--workers 2]

A fault is an example of its kind. The tests marked `fault(kind, example)` hold the right value for it and
for its neighbours: the same mistake in other types, formats, keys or moments. Ends with 1 if one of them
does not hold.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


class FaultTable:
    """Pytest plugin: count the outcomes of the tests of each example."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of one test: of its call, or of what kept it from being called."""
        if report.when == "call" or report.outcome != "passed":
            for name, fault in report.user_properties:
                if name == "fault":
                    kind, example = fault
                    self.outcomes[kind, example].append(report.outcome)

    def rows(self, kind: str | None) -> list[tuple[str, str, int, int, int]]:
        """Return kind, example, and how many cases were tried, held and skipped."""
        return [
            (of, example, len(each) - each.count("skipped"), each.count("passed"), each.count("skipped"))
            for (of, example), each in sorted(self.outcomes.items())
            if kind in (None, of)
        ]


def main() -> int:
    """Run the tests and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", help="of one kind only")
    parser.add_argument(
        "--quick", action="store_true", help="leave out the slow ones: kills, whole runs, fuzz"
    )
    parser.add_argument("--workers", default="2", help="processes that run the tests")
    options = parser.parse_args()
    table = FaultTable()
    chosen = "fault and not slow" if options.quick else "fault"
    arguments = [str(REPOSITORY / "tests"), "-m", chosen, "-n", options.workers, "-q", "--no-header"]
    code = pytest.main(arguments, plugins=[table])
    rows = table.rows(options.kind)
    print(f"\n{'kind':<14} {'example':<88} {'tried':>5} {'held':>5}")
    for kind, example, tried, held, skipped in rows:
        left_out = f"  ({skipped} skipped)" if skipped else ""
        print(f"{kind:<14} {example:<88} {tried:>5} {held:>5}{left_out}")
    print(f"{len(rows)} examples, {sum(r[2] for r in rows)} cases tried, {sum(r[3] for r in rows)} held")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
