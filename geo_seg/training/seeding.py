"""Seeds of training steps, which depend on the position in the run and on nothing before it."""

import random

import numpy as np
import torch


def seed_step(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Seed the global generators for a training step: dropout, augmentation, user transforms.

    A resumed run thus draws the same numbers as an uninterrupted one, and each process draws different ones.

    Args:
        seed: seed of the run.
        epoch: number of the epoch.
        batch: number of the batch in the epoch.
        rank: number of the process.

    Returns:
        A seed from 0 to 2^63 - 1, for further generators of this step.
    """
    words = np.random.SeedSequence([seed, epoch, batch, rank]).generate_state(2, np.uint64)
    key = int(words[0] >> np.uint64(1))
    torch.manual_seed(key)
    random.seed(key)
    np.random.seed(int(words[1] % 2**32))  # user transforms may draw from it
    return key
