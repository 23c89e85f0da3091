"""Randomised magnitude pruning: magnitude within random chunks of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_CHUNKS = 1000


def random_magnitude(weights: Tensor, keep: int, generator: torch.Generator | None) -> Tensor:
    """Draw a mask: shuffle the weights, and keep the largest of each chunk.

    There are ``min(⌊√n⌋, 1000)`` chunks of (almost) equal size, each with its share of the kept
    weights, so that small weights of some chunks are kept and larger ones of others are not
    (arXiv 2203.04466, section 4.1).

    Parameters
    ----------
    weights : Tensor, shape (n,)
        All prunable weights of a model.
    keep : int
        Number of weights to keep.
    generator : torch.Generator, optional
        None for plain magnitude pruning: one chunk.

    Returns
    -------
    Tensor of bool, shape (n,)
        True where pruned.
    """
    size = len(weights)
    magnitudes = weights.abs()
    pruned = torch.ones(size, dtype=torch.bool, device=weights.device)
    if generator is None:
        pruned[magnitudes.topk(keep).indices] = False
        return pruned
    chunks = max(1, min(math.isqrt(size), MOST_CHUNKS))
    order = torch.randperm(size, generator=generator).to(weights.device)
    for number, chunk in enumerate(order.tensor_split(chunks)):
        # Rounded cumulatively, so that the chunks' numbers add up.
        share = keep * (number + 1) // chunks - keep * number // chunks
        best = magnitudes[chunk].topk(min(share, len(chunk))).indices
        pruned[chunk[best]] = False
    missing = keep - int((~pruned).sum())
    if missing > 0:  # a chunk smaller than its share
        left = torch.where(pruned, magnitudes, -1.0)
        pruned[left.topk(missing).indices] = False
    return pruned
