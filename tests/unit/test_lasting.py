"""Imports without the search for garbage."""

import gc
import weakref

import pytest

from geo_seg.runtime.memory import gc_frozen


class Ring:
    """Refers to itself: only a search for garbage finds out that nobody else does."""

    def __init__(self) -> None:
        self.me = self


def test_what_is_made_within_is_never_searched_and_the_rest_is() -> None:
    try:
        with gc_frozen():
            assert not gc.isenabled()
            kept = weakref.ref(Ring())
        assert gc.isenabled()
        found = weakref.ref(Ring())
        gc.collect()
        assert kept() is not None
        assert found() is None
    finally:
        gc.unfreeze()
    gc.collect()
    assert kept() is None


def test_garbage_is_searched_again_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), gc_frozen():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.fault("ranks", "a training in one process keeps 4.4 MB for good")
def test_garbage_between_two_jobs_of_a_process_is_not_kept_for_good() -> None:
    try:
        with gc_frozen():
            pass
        left = weakref.ref(Ring())  # as a training does
        with gc_frozen():
            assert gc.isenabled()
        gc.collect()
        assert left() is None
    finally:
        gc.unfreeze()
