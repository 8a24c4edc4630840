"""Layers of an encoder learn the slower, the closer they are to the image."""

import pytest
import segmentation_models_pytorch as smp
import torch

from geo_seg.config.training import EncoderConfig
from geo_seg.errors import ConfigError
from geo_seg.training.optim import encoder_layers, parameter_groups


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet18", 4), ("tu-mobilenetv3_small_050", 6), ("mit_b0", 4), ("efficientnet-b0", 16)],
)
def test_every_weight_of_an_encoder_is_in_one_layer_and_the_stem_in_the_first(name: str, layers: int) -> None:
    encoder = smp.encoders.get_encoder(name, weights=None)
    found = encoder_layers(encoder)
    assert len(found) == layers
    numbers = [id(weight) for layer in found for weight in layer]
    assert sorted(numbers) == sorted(map(id, encoder.parameters()))
    first = next(encoder.parameters())
    assert any(weight is first for weight in found[0])


def test_rates_fall_from_the_decoder_to_the_image() -> None:
    encoder = smp.encoders.get_encoder("resnet18", weights=None)
    decoder = [torch.nn.Parameter(torch.zeros(1))]
    config = EncoderConfig(lr_factor=0.5, layer_decay=0.8)
    groups = parameter_groups(decoder, encoder, {"lr": 0.1}, config)
    rates = [group["lr"] for group in torch.optim.SGD(groups, lr=0.1).param_groups]
    assert rates == pytest.approx([0.1, 0.05 * 0.8**3, 0.05 * 0.8**2, 0.05 * 0.8, 0.05])
    plain = parameter_groups(decoder, encoder, {"lr": 0.1}, EncoderConfig())
    assert [set(group) for group in plain] == [{"params"}, {"params"}]
    with pytest.raises(ConfigError, match=r"expected a value for optimizer\.lr"):
        parameter_groups(decoder, encoder, {}, config)
