"""Augmentation moves image, labels and validity together; each option has an effect of its own."""

import pytest
import torch

from geo_seg.config import AugmentConfig
from geo_seg.data.augment import Augment

SIZE = 32


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image whose band 0 is its label, with a block of nodata."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (6, SIZE // 8, SIZE // 8), generator=draw)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[:, :8, :8] = False
    labels[~valid] = 255
    image = torch.where(valid, labels, 0).float().unsqueeze(1).repeat(1, 3, 1, 1)
    return image, labels.short(), valid


def augmented(seed: int = 0, **options: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    module = Augment(AugmentConfig(name="x", **options), 255)  # type: ignore[arg-type]
    return module(*batch(), torch.Generator().manual_seed(seed))


def test_without_options_nothing_changes() -> None:
    for before, after in zip(batch(), augmented(), strict=True):
        assert torch.equal(before, after)


def test_the_generator_decides_everything() -> None:
    options = {"d4": True, "rotate": 20.0, "noise": 0.1, "gain": 0.1, "bias": 0.1, "band_drop": 0.3}
    assert torch.equal(augmented(3, **options)[0], augmented(3, **options)[0])
    assert not torch.equal(augmented(3, **options)[0], augmented(4, **options)[0])


def test_flips_and_turns_are_drawn_per_sample_and_keep_image_and_label_together() -> None:
    image, labels, valid = augmented(d4=True)
    assert torch.equal(image[:, 0][valid], labels[valid].float())
    assert bool((labels[~valid] == 255).all())
    changed = [not torch.equal(a, b) for a, b in zip(labels, batch()[1], strict=True)]
    assert any(changed)
    assert len({tuple(map(tuple, sample.tolist())) for sample in valid}) > 2


@pytest.mark.parametrize("option", [{"rotate": 30.0}, {"scale": 0.5}, {"shear": 20.0}])
def test_a_warp_never_mixes_nodata_in_and_ignores_what_lies_outside(option: dict[str, float]) -> None:
    image, labels, valid = augmented(**option)
    assert not torch.equal(labels, batch()[1])
    assert bool((labels[~valid] == 255).all())
    assert bool((image.abs().amax(1)[~valid] == 0).all())
    flat = torch.ones(2, 1, SIZE, SIZE)
    hole = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    hole[:, 10:20, 10:20] = False
    module = Augment(AugmentConfig(name="x", **option), 255)
    warped, _, kept = module(flat * hole[:, None], hole.short(), hole, torch.Generator().manual_seed(0))
    torch.testing.assert_close(warped[:, 0][kept], torch.ones(int(kept.sum())))


@pytest.mark.parametrize("option", [{"gain": 0.5}, {"bias": 0.5}, {"noise": 0.5}, {"band_drop": 0.5}])
def test_radiometry_changes_the_image_only(option: dict[str, float]) -> None:
    image, labels, valid = augmented(**option)
    before = batch()
    assert torch.equal(labels, before[1])
    assert torch.equal(valid, before[2])
    assert not torch.equal(image, before[0])
    assert bool((image.abs().amax(1)[~valid] == 0).all())


def test_band_drop_never_drops_all_bands() -> None:
    assert bool((augmented(band_drop=0.999)[0].abs().amax((1, 2, 3)) > 0).all())


def test_negative_ignore_index_survives_a_warp() -> None:
    image, labels, valid = batch()
    labels[~valid] = -1
    module = Augment(AugmentConfig(name="x", rotate=30.0), -1)
    _, turned, kept = module(image, labels, valid, torch.Generator().manual_seed(0))
    assert set(turned.unique().tolist()) == {-1, 0, 1, 2, 3}
    assert bool((turned[~kept] == -1).all())
