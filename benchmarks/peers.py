"""Public implementations that each row of the loss benchmark is compared with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import segmentation_models_pytorch.losses as smp
from torch import Tensor
from torch.nn import functional as F

from benchmarks import published_losses as published

Loss = Callable[[Tensor, Tensor], Tensor]
BOTH = ("binary", "multiclass")
MULTICLASS = ("multiclass",)
BINARY = ("binary",)


@dataclass(frozen=True)
class Peer:
    """A public implementation of a loss.

    Attributes:
        rows: rows of the benchmark that it is compared in.
        name: name of the library or the author.
        modes: modes that it works in.
        ignores: whether it supports ignored pixels.
        make: (mode, ignore_index or None) -> loss; an ImportError if the library is missing.
    """

    rows: tuple[str, ...]
    name: str
    modes: tuple[str, ...]
    ignores: bool
    make: Callable[[str, int | None], Loss]


def _construct(module: str, name: str, **options: Any) -> Any:
    return getattr(import_module(module), name)(**options)


def _monai(name: str, **options: Any) -> Callable[[str, int | None], Loss]:
    def make(mode: str, ignore_index: int | None) -> Loss:
        arguments = dict(options)
        if ignore_index is not None:
            arguments["ignore_index"] = ignore_index
        if mode == "multiclass":
            arguments |= {"to_onehot_y": True}
        if name != "FocalLoss":
            arguments |= {"softmax": True} if mode == "multiclass" else {"sigmoid": True}
        loss = _construct("monai.losses", name, **arguments)
        return lambda logits, labels: loss(logits, labels.unsqueeze(1))

    return make


def _smp(name: str, **options: Any) -> Callable[[str, int | None], Loss]:
    return lambda mode, ignore_index: getattr(smp, name)(mode, ignore_index=ignore_index, **options)


def _toolbelt(name: str, **options: Any) -> Callable[[str, int | None], Loss]:
    return lambda mode, ignore_index: _construct("pytorch_toolbelt.losses", name, **options)


def _torch_and_smp(mode: str, ignore_index: int | None) -> Loss:
    dice = smp.DiceLoss(mode, ignore_index=ignore_index)
    return lambda z, y: F.cross_entropy(z, y, ignore_index=255) + dice(z, y)


def _soft_bce(mode: str, ignore_index: int | None) -> Loss:
    loss = smp.SoftBCEWithLogitsLoss(ignore_index=ignore_index)
    return lambda z, y: loss(z, y.unsqueeze(1).float())


def _any_mode(loss: Callable[..., Tensor], *options: Any) -> Callable[[str, int | None], Loss]:
    return lambda mode, ignore_index: partial(loss, *options)


def _keep_half(loss: Callable[..., Tensor]) -> Callable[[str, int | None], Loss]:
    return lambda mode, ignore_index: lambda z, y: loss(0.0, y.numel() // 2, z, y)


LOVASZ = ("lovasz", "lovasz_1024_bins")
PEERS = [
    Peer(
        ("cross_entropy",),
        "torch",
        MULTICLASS,
        True,
        _any_mode(partial(F.cross_entropy, ignore_index=255)),
    ),
    Peer(
        ("cross_entropy",),
        "smp",
        MULTICLASS,
        True,
        lambda mode, ignore_index: smp.SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=255),
    ),
    Peer(("soft_bce",), "smp", BINARY, True, _soft_bce),
    Peer(
        ("softmax_focal",),
        "kornia",
        MULTICLASS,
        True,
        lambda mode, ignore_index: _construct(
            "kornia.losses", "FocalLoss", alpha=None, reduction="mean", ignore_index=255
        ),
    ),
    Peer(("softmax_focal",), "monai", MULTICLASS, False, _monai("FocalLoss", use_softmax=True)),
    Peer(
        ("softmax_focal",), "toolbelt", MULTICLASS, True, _toolbelt("CrossEntropyFocalLoss", ignore_index=255)
    ),
    Peer(("focal",), "smp", BOTH, True, _smp("FocalLoss")),
    Peer(("focal",), "monai", BOTH, False, _monai("FocalLoss")),
    Peer(("dice",), "smp", BOTH, True, _smp("DiceLoss")),
    Peer(("dice",), "monai", BOTH, False, _monai("DiceLoss", batch=True)),
    Peer(("jaccard",), "smp", BOTH, False, lambda mode, ignore_index: smp.JaccardLoss(mode)),
    Peer(("generalized_dice",), "monai", BOTH, False, _monai("GeneralizedDiceLoss", batch=True)),
    Peer(LOVASZ, "smp", BOTH, True, _smp("LovaszLoss")),
    Peer(LOVASZ, "berman", MULTICLASS, False, _any_mode(published.lovasz)),
    Peer(("boundary_19_19",), "published", MULTICLASS, False, _any_mode(published.boundary, 19, 19)),
    Peer(("boundary_3_5",), "published", MULTICLASS, False, _any_mode(published.boundary, 3, 5)),
    Peer(("ohem",), "numpy", MULTICLASS, True, _any_mode(published.ohem_by_numpy, 0.6, 0)),
    Peer(("ohem",), "mmseg", MULTICLASS, True, _any_mode(published.ohem_by_sort, 0.6, 0)),
    Peer(("ohem_half",), "numpy", MULTICLASS, True, _keep_half(published.ohem_by_numpy)),
    Peer(("ohem_half",), "mmseg", MULTICLASS, True, _keep_half(published.ohem_by_sort)),
    Peer(("duo_19_19",), "published", MULTICLASS, False, _any_mode(published.duo, 19, 19)),
    Peer(("duo_3_5",), "published", MULTICLASS, False, _any_mode(published.duo, 3, 5)),
    Peer(("cross_entropy_dice",), "torch+smp", MULTICLASS, True, _torch_and_smp),
    Peer(("cross_entropy_dice",), "monai", MULTICLASS, False, _monai("DiceCELoss", batch=True)),
]


def peers_of(row: str, mode: str, *, ignored: bool) -> Iterator[tuple[str, Loss]]:
    """Yield the public implementations of a row of the benchmark.

    Args:
        row: name of the row.
        mode: "binary" or "multiclass".
        ignored: whether some pixels are ignored (label 255); those without support are skipped then.

    Yields:
        Name and callable (logits, labels) -> scalar of those that are installed.
    """
    for peer in PEERS:
        if row in peer.rows and mode in peer.modes and (peer.ignores or not ignored):
            try:
                yield peer.name, peer.make(mode, 255 if ignored else None)
            except ImportError:
                continue
