"""Random numbers of a training step, decided by where it stands in the run and by nothing before it."""

import random

import numpy as np
import torch


def seed_step(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Seeds what a training step draws from: dropout, augmentation, transforms of the user's.

    So a run that is resumed draws what it would have drawn, and each process of a run draws its own.

    Args:
        seed: of the run.
        epoch: number of the epoch.
        batch: number of the batch in the epoch.
        rank: number of the process.

    Returns:
        A seed from 0 to 2^63 - 1, for generators of the step's own.
    """
    words = np.random.SeedSequence([seed, epoch, batch, rank]).generate_state(2, np.uint64)
    key = int(words[0] >> np.uint64(1))
    torch.manual_seed(key)
    random.seed(key)
    np.random.seed(int(words[1] % 2**32))  # what users' transforms draw from
    return key
