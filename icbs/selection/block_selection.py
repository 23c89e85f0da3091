"""Selection of a block: the weights with the best scores that are not tabu."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.config.constraints import group_of
from icbs.model.gates import Gates
from icbs.model.layer import Layer

_NEVER = -(1 << 31)


class Tabu:
    """First-in-first-out list of recently visited weights of one layer.

    Each visit stamps a weight with a running count; a weight is tabu while its stamp is
    among the last ``length``, so that no queue is needed.

    Parameters
    ----------
    free : Tensor of bool, shape (size,)
        Weights that may move.
    share : float
        Length of the list as a share of the free weights.
    """

    def __init__(self, free: Tensor, share: float) -> None:
        self.free = free
        self.length = int(share * int(free.sum()))
        self.stamp = torch.full(free.shape, _NEVER, dtype=torch.int32, device=free.device)
        self.visits = 0

    def push(self, index: Tensor) -> None:
        """Add a block's weights to the list; the oldest entries are removed."""
        count = len(index)
        order = torch.arange(1, count + 1, dtype=self.stamp.dtype, device=index.device)
        self.stamp[index] = self.visits + order
        self.visits += count

    def without(self, index: Tensor) -> Tabu:
        """Return a list of the same length, with the weights at ``index`` fixed."""
        other = copy.copy(self)
        other.free = self.free.clone()
        other.free[index] = False
        return other

    def restore(self, stamp: Tensor, visits: int) -> None:
        """Restore the stamps and the count of a checkpoint.

        Raises
        ------
        ValueError
            If the stamps have another type or shape.
        """
        if stamp.dtype != self.stamp.dtype or stamp.shape != self.stamp.shape:
            raise ValueError(f"a tabu list is {stamp.dtype}{tuple(stamp.shape)}")
        # Cloned, since a tensor may be a view of the file, which the next checkpoint replaces.
        self.stamp, self.visits = stamp.clone().to(self.stamp.device), visits

    def active(self) -> Tensor:
        """Weights on the list, bool, shape (size,)."""
        return self.stamp > self.visits - self.length


def select_block(
    layer: Layer, scores: Tensor, tabu: Tabu, config: PrunerConfig, generator: torch.Generator
) -> Gates | None:
    """Select the next block of a layer, with one gate per weight; None if no weight may move.

    See :func:`choose_block`. Weights that share a cardinality are in one group.
    """
    index = choose_block(layer, scores, tabu, config, generator)
    if not len(index):
        return None
    labels = None
    if config.constraint != "layer":
        labels = group_of(index, layer.shape[1], config.constraint)
    return Gates.single(layer, index, labels)


def choose_block(
    layer: Layer, scores: Tensor, tabu: Tabu, config: PrunerConfig, generator: torch.Generator
) -> Tensor:
    """Choose the pruned weights with the highest scores and the kept ones with the lowest.

    Within a scope of outputs or inputs, up to sixteen weights of each side are taken from
    randomly chosen lines, as many as fill the block. Under N:M the block consists of whole runs:
    those whose best exchange of two weights gains the most. If too few weights are not tabu, the
    oldest on the tabu list are released first.

    Parameters
    ----------
    layer : Layer
    scores : Tensor, shape (out, in)
        Importance of each weight.
    tabu : Tabu
    config : PrunerConfig
        Size of the block (half of it from each side, if the layer has that many) and the scope
        of the cardinality.
    generator : torch.Generator

    Returns
    -------
    Tensor of int64, shape (n,), n ≤ block_size or one run
        Flat indices; the pruned weights first, or run by run under N:M.
    """
    if config.block_size == "all":
        raise ValueError("one block of all weights is selected by WholeModel")
    if config.pattern is not None:
        return _choose_runs(layer, scores, tabu, config.block_size, config.pattern.run)
    lines = _Lines(layer, config.constraint, config.block_size, generator)
    half = max(1, config.block_size // (2 * lines.count))
    line_scores, pruned = lines.of(scores), lines.of(layer.pruned)
    free, active = lines.of(tabu.free), lines.of(tabu.active())

    def best(ranked: Tensor, side: Tensor) -> Tensor:
        """Flat indices of the weights of one side that rank highest in each line."""
        allowed = side & free
        fresh = allowed & ~active
        count = min(half, allowed.shape[1])
        if (fresh.sum(dim=1) < allowed.sum(dim=1).clamp(max=count)).any():
            ranked, fresh = _tabu_last(ranked, active, lines.of(tabu.stamp)), allowed
        top = ranked.masked_fill(~fresh, -torch.inf).topk(count, dim=1)
        return lines.flat(top.indices)[top.values > -torch.inf]

    return torch.cat([best(line_scores, pruned), best(-line_scores, ~pruned)])


def _choose_runs(layer: Layer, scores: Tensor, tabu: Tabu, block_size: int, run: int) -> Tensor:
    """Flat indices of the free weights of the runs with the largest gain of an exchange."""
    by_run, pruned, free = (t.reshape(-1, run) for t in (scores, layer.pruned, tabu.free))
    low, high = -torch.inf, torch.inf
    enter = by_run.masked_fill(~(pruned & free), low).amax(dim=1)
    leave = by_run.masked_fill(pruned | ~free, high).amin(dim=1)
    gain = enter - leave
    possible = gain > low
    active = tabu.active().view(-1, run).any(dim=1)
    count = min(max(1, block_size // run), int(possible.sum()))
    if int((possible & ~active).sum()) < count:
        stamp = tabu.stamp.view(-1, run).amax(dim=1)
        gain = _tabu_last(gain.masked_fill(~possible, 0), active, stamp)
    else:
        possible &= ~active
    best = gain.masked_fill(~possible, low).topk(count).indices
    index = best[:, None] * run + torch.arange(run, device=best.device)
    return index[free[best]]


class _Lines:
    """The lines of a layer: the whole layer, or some of its outputs or inputs."""

    def __init__(
        self, layer: Layer, scope: str, block_size: int, generator: torch.Generator
    ) -> None:
        self.shape, self.scope = layer.shape, scope  # never a pattern: those use runs
        rows, columns = layer.shape
        most = {"layer": 1, "output": rows, "input": columns}[self.scope]
        self.count = min(most, max(1, block_size // 32))
        self.chosen: Tensor | None = None
        if self.count < most:
            drawn = torch.randperm(most, generator=generator)[: self.count]
            self.chosen = drawn.to(layer.dense.device)

    def of(self, values: Tensor) -> Tensor:
        """Arrange one value per weight as (lines, weights of a line)."""
        if self.scope == "layer":
            return values.reshape(1, -1)
        grid = values.reshape(self.shape)
        lines = grid if self.scope == "output" else grid.T
        return lines if self.chosen is None else lines[self.chosen]

    def flat(self, places: Tensor) -> Tensor:
        """Flat indices of positions within each line, shape (lines, any)."""
        if self.scope == "layer":
            return places
        number = torch.arange(self.count, device=places.device)
        line = (number if self.chosen is None else self.chosen)[:, None]
        columns = self.shape[1]
        return line * columns + places if self.scope == "output" else places * columns + line


def _tabu_last(scores: Tensor, active: Tensor, stamp: Tensor) -> Tensor:
    """Rank tabu weights below all others, the oldest on the list first."""
    stamps = stamp[active].to(torch.float64)
    newest = stamps.max()
    age = (newest - stamps) / (newest - stamps.min() + 1)
    low = float(scores.min())
    ranked = scores.to(torch.float64)
    # Tabu weights get values in an interval of length one below all others.
    ranked[active] = low - 2.0 - max(1.0, abs(low)) + age
    return ranked
