"""docs/losses.md against the registry and the code that it is made from."""

import re
from pathlib import Path

import pytest

import losses
from benchmarks import losses_table

TEXT = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")


def skip_new_loss(name):
    """Skips a loss that was added without an oracle, and maybe not yet written to the page by `make docs`."""
    if message := losses_table.missing_oracle(name):
        pytest.skip(message)


def test_every_loss_has_its_section_and_its_row_in_order():
    sections = re.findall(r"^## (.*)$", TEXT, re.M)
    known = [n for n in losses.available() if n in sections or not losses_table.missing_oracle(n)]
    assert sections == known
    assert re.findall(r"^\| \[(\w+)\]", TEXT, re.M) == known


@pytest.mark.parametrize("name", losses.available())
def test_a_section_says_what_docstrings_and_yaml_say(name):
    if f"\n## {name}\n" not in TEXT:
        skip_new_loss(name)
    assert losses_table.section(name) in TEXT, "run make docs"


def test_the_table_takes_a_loss_without_an_oracle_and_says_so(monkeypatch, capsys):
    entry = losses.registry._LOSSES["focal"]
    monkeypatch.setitem(losses.registry._LOSSES, "brand_new", entry)
    assert losses_table.table_row("brand_new").endswith("| – | – | – |\n")
    assert "note: brand_new has no oracle in tests/contract/loss_oracles.py" in capsys.readouterr().out


@pytest.mark.parametrize("name", losses.available())
def test_the_measured_errors_of_a_loss_are_small(name):
    skip_new_loss(name)
    for mode in losses.modes(name):
        task = losses_table.task_of(mode)
        value_error, grad_error = losses_table.errors(name, task, losses_table.DTYPES[-1])
        assert value_error < 1e-6
        assert grad_error < 1e-5
