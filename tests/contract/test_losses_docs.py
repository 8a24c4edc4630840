"""docs/losses.md against the registry and the code that it is made from."""

import re
from pathlib import Path

import pytest

import losses
from benchmarks import losses_table

TEXT = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")


def test_every_loss_has_its_section_and_its_row_in_order():
    assert re.findall(r"^## (.*)$", TEXT, re.M) == list(losses.available())
    assert re.findall(r"^\| \[(\w+)\]", TEXT, re.M) == list(losses.available())


@pytest.mark.parametrize("name", losses.available())
def test_a_section_says_what_docstrings_and_yaml_say(name):
    assert losses_table.section(name) in TEXT, "run python benchmarks/losses_table.py"


@pytest.mark.parametrize("name", losses.available())
def test_the_measured_errors_of_a_loss_are_small(name):
    for mode in losses.modes(name):
        task = losses_table.task_of(mode)
        value_error, grad_error = losses_table.errors(name, task, losses_table.DTYPES[-1])
        assert value_error < 1e-6
        assert grad_error < 1e-5
