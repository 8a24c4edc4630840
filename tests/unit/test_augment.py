"""Augmentation moves image, labels and validity together; each option has an effect of its own."""

import pytest
import torch

from geo_seg.config.augment import AugmentConfig
from geo_seg.data.augment import Augment
from geo_seg.errors import ConfigError

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


def radiometry(count: int = 4000, **options: float) -> torch.Tensor:
    """What becomes of bands that are 1 everywhere, (count, 3, 8, 8)."""
    valid = torch.ones(count, 8, 8, dtype=torch.bool)
    module = Augment(AugmentConfig(name="x", **options), 255)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(0)
    found: torch.Tensor = module(torch.ones(count, 3, 8, 8), valid.byte(), valid, draw)[0]
    return found


@pytest.mark.parametrize("option", ["gain", "bias"])
@pytest.mark.fault("config", "a strength of augmentation that is ten times its bound")
def test_gain_and_bias_are_drawn_evenly_per_band_up_to_their_bound(option: str) -> None:
    found = radiometry(**{option: 0.2}) - 1
    assert torch.equal(found, found[..., :1, :1].expand_as(found))  # one for all pixels of a band
    drawn = found[..., 0, 0]
    assert 0.199 < float(drawn.max()) <= 0.2 + 1e-6
    assert -0.199 > float(drawn.min()) >= -0.2 - 1e-6
    assert float(drawn.std()) == pytest.approx(0.4 / 12**0.5, rel=0.02)  # of an even distribution
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.05  # each band has its own


@pytest.mark.fault("config", "a strength of augmentation that is ten times its bound")
def test_noise_has_the_standard_deviation_that_is_asked_for_in_every_pixel() -> None:
    found = radiometry(400, noise=0.3) - 1
    assert float(found.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(found.mean())) < 0.01
    assert abs(float(torch.corrcoef(found[..., 0, :2].reshape(-1, 2).T)[0, 1])) < 0.1


@pytest.mark.fault("config", "a strength of augmentation that is ten times its bound")
def test_bands_are_dropped_as_often_as_asked_for_but_never_all() -> None:
    found = radiometry(band_drop=0.3)[..., 0, 0]
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert float((found == 0).float().mean()) == pytest.approx(0.3 - 0.3**3 / 3, abs=0.02)
    assert bool((found.sum(1) > 0).all())


def test_band_drop_never_drops_all_bands() -> None:
    assert bool((augmented(band_drop=0.999)[0].abs().amax((1, 2, 3)) > 0).all())


@pytest.mark.parametrize(
    ("option", "border"),
    [
        ({"gain": 0.5, "d4": True}, 0),
        ({"scale": 1.0}, 50),
        ({"scale": [0.5, 0.5]}, 50),
        ({"scale": [0.8, 2]}, 13),
        ({"scale": [1, 2]}, 0),
        ({"rotate": 20.0}, 15),
        ({"rotate": 45.0}, 21),
        ({"rotate": 180.0}, 21),
        ({"shear": 45.0}, 50),
        ({"scale": 0.25, "rotate": 20.0, "shear": 5.0}, 36),
    ],
)
def test_a_border_holds_all_that_a_warp_turns_in_and_no_more(option: dict[str, float], border: int) -> None:
    config = AugmentConfig(name="x", **option)  # type: ignore[arg-type]
    assert config.border(100) == border
    side = 100 + 2 * border
    image = torch.randn(400, 1, side, side)
    for cut in (0, min(max(border // 4, 1), 8)):  # some draw needs most of it, and none lacks a fifth
        valid = torch.zeros(400, side, side, dtype=torch.bool)
        valid[:, cut : side - cut, cut : side - cut] = True
        labels = torch.where(valid, 0, 255).byte()
        draw = torch.Generator().manual_seed(0)
        _, turned, kept = Augment(config, 255, border)(image, labels, valid, draw)
        assert kept.shape == turned.shape == (400, 100, 100)
        assert bool(kept.all()) == (not cut)
        assert torch.equal(turned == 255, ~kept)


@pytest.mark.parametrize(("scale", "least", "most"), [(1.0, 0.5, 2), ([0.5, 0.8], 0.5, 0.8), ([1, 3], 1, 3)])
def test_scales_are_drawn_between_the_least_and_the_most(scale: object, least: float, most: float) -> None:
    config = AugmentConfig(name="x", scale=scale)
    border = config.border(64)
    side = 64 + 2 * border
    ramp = torch.arange(side).float().expand(500, 1, side, side)
    labels = torch.zeros(500, side, side, dtype=torch.uint8)
    found = Augment(config, 255, border)(ramp, labels, labels < 1, torch.Generator().manual_seed(0))
    scales = 1 / (found[0][:, 0, 32, 40] - found[0][:, 0, 32, 39])
    assert least <= float(scales.min()) + 1e-4 < least * 1.02
    assert most >= float(scales.max()) - 1e-4 > most * 0.98
    middle = (least * most) ** 0.5  # as many draws below as above it
    assert 200 < int((scales < middle).sum()) < 300


def test_a_window_lies_in_the_middle_of_its_border() -> None:
    image = torch.randn(2, 3, 50, 50)
    labels = torch.randint(0, 4, (2, 50, 50), dtype=torch.uint8)
    config = AugmentConfig(name="x", scale=1e-9)
    found = Augment(config, 255, 9)(image, labels, labels < 9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[0], image[:, :, 9:-9, 9:-9], atol=1e-4, rtol=0)
    assert torch.equal(found[1], labels[:, 9:-9, 9:-9])
    assert bool(found[2].all())


def test_negative_ignore_index_survives_a_warp() -> None:
    image, labels, valid = batch()
    labels[~valid] = -1
    module = Augment(AugmentConfig(name="x", rotate=30.0), -1)
    _, turned, kept = module(image, labels, valid, torch.Generator().manual_seed(0))
    assert set(turned.unique().tolist()) == {-1, 0, 1, 2, 3}
    assert bool((turned[~kept] == -1).all())


def test_gamma_bends_the_brightness_curve_and_keeps_its_ends_and_order() -> None:
    ramp = torch.linspace(-3, 3, SIZE * SIZE).view(1, 1, SIZE, SIZE).repeat(2, 2, 1, 1)
    everywhere = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    module = Augment(AugmentConfig(name="x", gamma=0.5), 255)
    bent, _, _ = module(ramp, everywhere.short(), everywhere, torch.Generator().manual_seed(0))
    values = bent.flatten(2)
    torch.testing.assert_close(values[..., 0], torch.full((2, 2), -3.0), atol=1e-2, rtol=0)
    torch.testing.assert_close(values[..., -1], torch.full((2, 2), 3.0))
    assert bool((values.diff() > 0).all())
    middle = (values[..., SIZE * SIZE // 2] + 3) / 6
    exponents = torch.log(middle) / torch.log(torch.tensor(0.5))
    assert len(set(exponents.flatten().tolist())) == 4  # one per sample and band
    assert bool(((exponents > 1 / 1.51) & (exponents < 1.51)).all())


def test_labels_of_8_bits_survive_a_warp() -> None:
    image, labels, valid = batch()
    module = Augment(AugmentConfig(name="x", rotate=30.0), 255)
    for dtype in (torch.uint8, torch.int16):
        draw = torch.Generator().manual_seed(0)
        _, turned, kept = module(image, labels.to(dtype), valid, draw)
        assert turned.dtype == dtype
        assert set(turned.unique().tolist()) == {0, 1, 2, 3, 255}
        assert bool((turned[~kept] == 255).all())


FLIP = {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip", "p": 0.5}
TURN = {"_target_": "torchvision.transforms.v2.RandomRotation", "degrees": 40}


def test_transforms_of_torchvision_move_image_labels_and_validity_together_sample_by_sample() -> None:
    image, labels, valid = augmented(transforms=[FLIP])
    assert torch.equal(image[:, 0][valid], labels[valid].float())
    assert bool((labels[~valid] == 255).all())
    flipped = [not torch.equal(a, b) for a, b in zip(labels, batch()[1], strict=True)]
    assert any(flipped)
    assert not all(flipped)


def test_what_a_transform_turns_in_from_outside_is_ignored() -> None:
    _, labels, valid = augmented(transforms=[TURN])
    assert int((~valid).sum()) > int((~batch()[2]).sum())
    assert bool((labels[~valid] == 255).all())
    assert set(labels.unique().tolist()) == {0, 1, 2, 3, 255}


def test_the_generator_decides_the_draws_of_transforms_too_and_leaves_those_of_others_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = augmented(3, transforms=[FLIP])
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first[0], augmented(3, transforms=[FLIP])[0])
    assert any(not torch.equal(first[0], augmented(seed, transforms=[FLIP])[0]) for seed in range(4, 8))


class Mirror:
    """A transform of the user's, called as kornia's AugmentationSequential is."""

    def __call__(self, *parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert [part.shape[1] for part in parts] == [3, 1, 1]
        assert all(part.dtype == torch.float32 for part in parts)
        return tuple(part.flip(-1) for part in parts)


def test_any_other_transform_gets_the_batch() -> None:
    image, labels, valid = augmented(transforms=[{"_target_": f"{__name__}.Mirror"}])
    for before, after in zip(batch(), (image, labels, valid), strict=True):
        assert torch.equal(before.flip(-1), after)


def test_a_transform_that_cannot_be_built_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"augment\.transforms: torchvision\.transforms\.v2\.RandomRotation: "
    ):
        augmented(transforms=[{**TURN, "degrees": "far"}])


@pytest.mark.parametrize("size", [(32, 0), (128, 0), (128, 64)])
@pytest.mark.parametrize(
    "options",
    [
        {"scale": [0.5, 1]},
        {"scale": [0.5, 0.6]},
        {"shear": 40.0},
        {"scale": 0.5, "shear": 20.0, "rotate": 180.0, "d4": True},
    ],
)
def test_a_warp_turns_in_nothing_for_at_most_a_fifth_of_what_a_window_could_hold(
    options: dict[str, object], size: tuple[int, int]
) -> None:
    side, border = size
    draw = torch.Generator().manual_seed(4)
    valid = torch.ones(60, side + 2 * border, side + 2 * border, dtype=torch.bool)
    for number, ends in enumerate(
        torch.randint(side // 2, side + 2 * border, (60,), generator=draw).tolist()
    ):
        if number % 3:  # the scene ends there
            valid[number, ends:] = False
        if number % 3 == 2:
            valid[number, :, ends:] = False
    inner = valid[:, border : border + side, border : border + side].float().mean((1, 2))
    module = Augment(AugmentConfig(name="x", **options), 255, border)  # type: ignore[arg-type]
    image, labels = valid.float().unsqueeze(1), valid.short()
    for seed in range(4):
        kept = module(image, labels, valid, torch.Generator().manual_seed(seed))[2].float().mean((1, 2))
        assert bool((kept >= 0.8 * inner).all())


def test_a_warp_that_turns_in_enough_is_left_as_it_was_drawn() -> None:
    module = Augment(AugmentConfig(name="x", scale=[0.5, 0.5]), 255, 16)
    valid = torch.ones(2, 64, 64, dtype=torch.bool)
    ramp = torch.arange(64.0).expand(2, 1, 64, 64)
    image, _, kept = module(ramp, valid.short(), valid, torch.Generator().manual_seed(0))
    assert bool(kept.all())
    assert image[0, 0, 0, 31] - image[0, 0, 0, 0] == pytest.approx(62, abs=0.5)  # all 64 columns, not 32
