"""What can be said of a GPU without one: PyTorch's fake tensors run the forward pass of a CUDA device.

A fake tensor has no values, so whatever would make the host wait for the device (item, nonzero, a branch on
a value) raises; and a watcher sees every operation that takes a tensor from the CPU, which is a copy.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import losses
from tests.contract.test_losses_values import IDS, VARIANTS, make_task


class Copies(TorchDispatchMode):
    """Notes operations that touch a tensor of the CPU."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        if any(t.device.type == "cpu" for t in tensors):
            self.operations.append(str(func))
        return result


@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
@pytest.mark.parametrize("ignore_index", [255, None])
def test_on_cuda_nothing_waits_for_the_device_and_nothing_is_copied(variant, ignore_index):
    name, mode, options, weights = variant
    task = make_task(mode, weights, ignore_index)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss = losses.build(name, task, **options).to("cuda")
        logits = torch.randn(2, task.channels, 16, 16, device="cuda", requires_grad=True)
        labels = torch.zeros(2, 16, 16, device="cuda", dtype=torch.uint8)
        with Copies() as copies:
            value = loss(logits, labels)
    assert value.device.type == "cuda"
    assert value.requires_grad
    assert copies.operations == []


@pytest.mark.parametrize("name", losses.available())
def test_labels_and_logits_on_different_devices_are_an_error(name):
    mode = losses.modes(name)[0]
    task = make_task(mode)
    loss = losses.build(name, task)
    with pytest.raises(ValueError, match="labels are on meta, logits on cpu"):
        loss(torch.zeros(1, task.channels, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long, device="meta"))
