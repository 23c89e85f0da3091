"""Which layers get a block in which pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from icbs.model.layer import Layer


def shares(layers: Sequence[Layer], schedule: str, least: float) -> list[float]:
    """Share of the passes in which each layer is visited.

    ``log`` visits the largest layer in every pass and the others in proportion to the
    logarithm of their size, but no less than ``least``; ``uniform`` visits all, always.
    """
    if schedule == "uniform":
        return [1.0] * len(layers)
    logs = [math.log(max(layer.size, 2)) for layer in layers]
    return [max(least, log / max(logs)) for log in logs]


def due(step: int, share: float) -> bool:
    """Whether a layer with this share is visited in pass ``step`` (0, 1, …).

    Visits are spread evenly and depend on the step alone, so that a resumed run agrees.
    """
    return math.floor((step + 1) * share + 1e-9) > math.floor(step * share + 1e-9)


def visit_order(
    layers: Sequence[Layer], visit: Sequence[float], step: int, generator: torch.Generator
) -> list[Layer]:
    """Return the layers whose turn it is in this pass, in random order."""
    turn = [layer for layer, share in zip(layers, visit, strict=True) if due(step, share)]
    return [turn[i] for i in torch.randperm(len(turn), generator=generator)]


def selection_point(share: float, samples: int) -> int | None:
    """Return the number of samples of a pass that select its blocks; None for all of them."""
    return min(math.ceil(share * samples), samples - 1) or None
