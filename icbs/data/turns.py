"""The order in which samples come: all of them in turn."""

from __future__ import annotations

import torch
from torch import Tensor


def in_turn(size: int, seen: int, count: int, seed: int) -> Tensor:
    """Say which samples come next: none a second time before all others have come.

    A mask fits the samples that it was chosen by; their gradients promise more than others
    keep.

    Parameters
    ----------
    size : int
        Samples there are.
    seen : int
        How many have come before, in all rounds.
    count : int
        How many are asked for, at most ``size``.
    seed : int
        Of the order, which is that of every round: so no two passes that follow one another
        share a sample where the rest would do.

    Returns
    -------
    Tensor of int64, shape (count,)
        Indices, none of them twice.
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order.roll(-seen)[:count]
