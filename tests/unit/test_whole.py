"""Files are whole or not there, whoever else writes them."""

from pathlib import Path

import pytest

from geo_seg.runtime.files import atomic_write, temp_path


def test_a_reader_finds_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic_write(file, "old")

    def write(part: Path) -> None:
        part.write_text("new")
        assert file.read_text() == "old"

    atomic_write(file, write, concurrent=True, fsync=True)
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("shared", [True, False])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, shared: bool) -> None:
    file = tmp_path / "a.json"
    atomic_write(file, b"old")

    def write(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(file, write, concurrent=shared)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_only_shared_files_have_parts_of_different_names(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert len({temp_path(file, concurrent=True) for _ in range(100)}) == 100  # of one process, too
    assert len({temp_path(file, concurrent=False) for _ in range(100)}) == 1
