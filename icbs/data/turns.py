"""The order in which samples come: all of them in turn, shuffled anew each round."""

from __future__ import annotations

import torch
from torch import Tensor


def in_turn(size: int, first: int, count: int, seed: int) -> Tensor:
    """Say which samples come next, so that those not yet seen come before all others.

    A mask fits the samples that it was chosen by; their gradients promise more than others
    keep. So a run takes no sample twice before it has taken all.

    Parameters
    ----------
    size : int
        Samples there are.
    first : int
        Samples that have come before, in all rounds.
    count : int
        How many are asked for, at most ``size``.
    seed : int

    Returns
    -------
    Tensor of int64, shape (count,)
        Indices, none of them twice.
    """

    def shuffled(number: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed << 24) + number)
        return torch.randperm(size, generator=generator)

    number, place = divmod(first, size)
    left = shuffled(number)[place : place + count]
    following = shuffled(number + 1)
    return torch.cat([left, following[~torch.isin(following, left)][: count - len(left)]])
