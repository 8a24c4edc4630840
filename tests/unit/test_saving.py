"""A checkpoint is whole or not there, and a disk that is full is answered."""

from pathlib import Path

import pytest
import torch

from geo_seg.errors import TrainingError
from geo_seg.runtime.files import temp_path
from geo_seg.training.callbacks.checkpoint_io import AtomicCheckpointIO


def test_a_full_disk_is_named_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    target = tmp_path / "run" / "checkpoints" / "new.ckpt"
    AtomicCheckpointIO(print).save_checkpoint({"a": torch.zeros(3)}, target)
    before = target.read_bytes()
    temp_path(target, concurrent=False).symlink_to("/dev/full")
    with pytest.raises(
        TrainingError, match=r"checkpoints: .*No space left on device.*resume=.*run$"
    ) as caught:
        AtomicCheckpointIO(print).save_checkpoint({"a": torch.ones(300_000)}, target)
    assert "\n" not in str(caught.value)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["new.ckpt"]
