"""Which weights form the next block: the most promising ones that are not tabu."""

from __future__ import annotations

import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.layers import Layer

_NEVER = -(1 << 62)


class Tabu:
    """First-in-first-out list of recently visited weights of one layer.

    Each visit stamps a weight with a running count; a weight is tabu while its stamp is
    among the last ``length``. No queue is kept.

    Parameters
    ----------
    free : Tensor of bool, shape (size,)
        Weights that may move at all.
    share : float
        Length of the list as a share of the free weights.
    """

    def __init__(self, free: Tensor, share: float) -> None:
        self.free = free
        self.length = int(share * int(free.sum()))
        self.stamp = torch.full(free.shape, _NEVER, dtype=torch.int64, device=free.device)
        self.visits = 0

    def push(self, index: Tensor) -> None:
        """Put a block's weights on the list; the oldest ones fall off."""
        count = len(index)
        self.stamp[index] = self.visits + torch.arange(1, count + 1, device=index.device)
        self.visits += count

    def active(self) -> Tensor:
        """Weights on the list, bool, shape (size,)."""
        return self.stamp > self.visits - self.length


def choose_block(
    layer: Layer, scores: Tensor, tabu: Tabu, config: PrunerConfig, generator: torch.Generator
) -> Tensor:
    """Pick the pruned weights most worth keeping and the kept ones least worth it.

    Within a scope of outputs or inputs, up to sixteen of each side are taken from each of
    as many randomly chosen lines as fill the block. Where too few weights are off the tabu
    list, the oldest on it are let go first.

    Parameters
    ----------
    layer : Layer
    scores : Tensor, shape (out, in)
        Worth of keeping a weight.
    tabu : Tabu
    config : PrunerConfig
        Size of the block, half of either side where the layer has that many, and the
        scope that keeps its count of weights.
    generator : torch.Generator

    Returns
    -------
    Tensor of int64, shape (n,), n ≤ block_size
        Flat indices, the pruned weights first.
    """
    grid = torch.arange(layer.size, device=layer.dense.device).view(layer.shape)
    lines = {"layer": grid.view(1, -1), "output": grid, "input": grid.T}[config.constraint]
    size = config.block_size
    count = min(len(lines), max(1, size // 32))
    if count < len(lines):
        lines = lines[torch.randperm(len(lines), generator=generator)[:count]]
    half = max(1, size // (2 * len(lines)))

    pool = _Pool(lines, tabu, half)
    worth, pruned = scores.flatten()[lines], layer.pruned[lines]
    return torch.cat([pool.best(worth, pruned), pool.best(-worth, ~pruned)])


class _Pool:
    """Candidates by line, and the rule that tabu weights come last."""

    def __init__(self, lines: Tensor, tabu: Tabu, count: int) -> None:
        self.lines = lines
        self.count = min(count, lines.shape[1])
        self.free = tabu.free[lines]
        self.tabu = tabu.active()[lines]
        self.stamp = tabu.stamp

    def best(self, worth: Tensor, side: Tensor) -> Tensor:
        """Flat indices of the most worthy weights of one side of each line."""
        allowed = side & self.free
        fresh = allowed & ~self.tabu
        wanted = allowed.sum(dim=1).clamp(max=self.count)
        if (fresh.sum(dim=1) < wanted).any():
            worth, fresh = self._tabu_last(worth), allowed
        top = worth.masked_fill(~fresh, -torch.inf).topk(self.count, dim=1)
        return self.lines.gather(1, top.indices)[top.values > -torch.inf]

    def _tabu_last(self, worth: Tensor) -> Tensor:
        """Rank tabu weights behind all others, the longest on the list first."""
        stamps = self.stamp[self.lines[self.tabu]].to(torch.float64)
        newest = stamps.max()
        age = (newest - stamps) / (newest - stamps.min() + 1)
        low = float(worth.min())
        ranked = worth.to(torch.float64)
        # The list is spread over one unit below everything else.
        ranked[self.tabu] = low - 2.0 - max(1.0, abs(low)) + age
        return ranked
