"""Two processes, as in distributed training: which losses have the gradient of the whole batch."""

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import losses

# The mean over the processes is the loss of the whole batch where a loss is a mean over pixels and each
# process has as many valid ones (of the kind and weight that count).
PIXEL_LOSSES = (
    *(("cross_entropy", "multiclass"), ("softmax_focal", "multiclass"), ("focal", "multiclass")),
    *(("soft_bce", "binary"), ("focal", "binary")),
)
# Those are functions of the set of all pixels, so every process has its own: the mean of the losses of the
# parts, as with the batch statistics of a norm that is not synchronised.
SET_LOSSES = tuple(
    (name, mode)
    for name in ("dice", "generalized_dice", "tversky", "mcc", "lovasz", "boundary", "duo", "ohem")
    for mode in losses.modes(name)
)


def draw(mode):
    generator = torch.Generator().manual_seed(5)
    task = losses.Task(mode, 3 if mode == "multiclass" else 2)
    image = torch.randn(4, 2, 8, 8, generator=generator)
    labels = torch.randint(0, task.num_classes, (4, 4, 4), generator=generator)
    labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    labels[:, 0, :3] = 255
    return task, image, labels


def network(task):
    torch.manual_seed(0)
    return nn.Conv2d(2, task.channels, 3, padding=1)


def gradient(model, loss, image, labels):
    loss(model(image), labels).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def work(rank, store, results, cases):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for name, mode in cases:
        task, image, labels = draw(mode)
        part = slice(2 * rank, 2 * rank + 2)
        model = DistributedDataParallel(network(task))
        loss = losses.build(name, task)
        both = gradient(model, loss, image[part], labels[part])
        # an empty share must not leave the other process waiting
        nothing = torch.full_like(labels[part], 255) if rank else labels[part]
        loss(model(image[part]), nothing).backward()
        if rank == 0:
            results[name, mode] = both.tolist()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Gradient of every loss in two processes."""
    cases = (*PIXEL_LOSSES, *SET_LOSSES)
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        store = tmp_path_factory.mktemp("store") / "file"
        multiprocessing.spawn(work, (str(store), results, cases), nprocs=2)
        return dict(results)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), PIXEL_LOSSES)
def test_two_processes_have_the_gradient_of_one_for_means_over_pixels(together, name, mode):
    task, image, labels = draw(mode)
    alone = gradient(network(task), losses.build(name, task), image, labels)
    torch.testing.assert_close(torch.tensor(together[name, mode]), alone, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), SET_LOSSES)
def test_two_processes_have_the_mean_gradient_of_their_shares_for_losses_of_sets(together, name, mode):
    task, image, labels = draw(mode)
    loss = losses.build(name, task)
    parts = [gradient(network(task), loss, image[part], labels[part]) for part in (slice(2), slice(2, 4))]
    torch.testing.assert_close(
        torch.tensor(together[name, mode]), (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-7
    )
