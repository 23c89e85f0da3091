"""Schedule of the layers: the passes in which each layer has a block."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from icbs.model.layer import Layer


def shares(layers: Sequence[Layer], schedule: str, least: float) -> list[float]:
    """Share of the passes in which each layer is visited.

    ``log`` visits the largest layer in every pass and the others in proportion to the
    logarithm of their size, but at least ``least``; ``uniform`` visits all layers in every pass.
    """
    if schedule == "uniform":
        return [1.0] * len(layers)
    logs = [math.log(max(layer.size, 2)) for layer in layers]
    return [max(least, log / max(logs)) for log in logs]


def due(step: int, share: float) -> bool:
    """Whether a layer with this share is visited in pass ``step`` (0, 1, …).

    Visits are evenly spaced and depend only on the step, so that a resumed run is identical.
    """
    return math.floor((step + 1) * share + 1e-9) > math.floor(step * share + 1e-9)


def visit_order(
    layers: Sequence[Layer], visit: Sequence[float], step: int, generator: torch.Generator
) -> list[Layer]:
    """Return the layers that are due in this pass, in random order."""
    layers_due = [layer for layer, share in zip(layers, visit, strict=True) if due(step, share)]
    return [layers_due[i] for i in torch.randperm(len(layers_due), generator=generator)]


def selection_point(share: float, samples: int) -> int | None:
    """Return the number of samples of a pass that select its blocks; None for all of them."""
    return min(math.ceil(share * samples), samples - 1) or None
