"""Pages of docs/: made from the code where they can be, listed in the index, with links that lead on."""

import re
from pathlib import Path

import pytest

from benchmarks import keys_table
from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import TrainConfig
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_index_lists_every_page() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


def test_the_page_of_keys_is_what_the_schema_says() -> None:
    assert keys_table.PAGE.read_text(encoding="utf-8") == keys_table.page(), "run make docs"


@pytest.mark.parametrize("schema", [TrainConfig, InferenceConfig])
def test_every_key_has_a_meaning(schema: type) -> None:
    assert all(meaning for *_, meaning in keys_table.rows(schema))
