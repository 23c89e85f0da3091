"""Random streams of a run, all derived from its seed."""

from __future__ import annotations

import numpy as np
import torch


def samples(seed: int) -> torch.Generator:
    """Stream for the choice of held-out samples and the order of the others."""
    return torch.Generator().manual_seed(seed)


def passes(seed: int) -> torch.Generator:
    """Stream for the start and all passes; its state is part of a checkpoint."""
    return torch.Generator().manual_seed(seed + 1)


def solver_seed(seed: int, step: int) -> int:
    """Seed of the solver in pass ``step``, the same for all of its blocks."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def recovery(seed: int, number: int) -> torch.Generator:
    """Stream of a part of a recovery, such as a block; parts can be repeated in any order."""
    state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)
