"""Figures of the layers of a run, single and in groups: density, blocks, gains."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from icbs.model.gates import ALL_GROUPS, JOINED
from icbs.run.history import BlockRecord


@dataclass(frozen=True)
class LayerFigures:
    """Figures of one layer, or sums over several."""

    name: str
    layers: int
    """Number of layers."""
    size: int
    """Number of weights; 0 for an unfinished run."""
    kept: int
    """Number of weights kept."""
    blocks: int
    accepted: int
    """Number of accepted blocks."""
    moved: int
    """Number of weights pruned or restored in accepted blocks."""
    predicted: float
    """Change of the loss by the quadratic models, over the accepted blocks."""
    actual: float
    """Change of the held-out loss; NaN if acceptance was decided for whole passes."""
    milliseconds: float
    """Median of the solver's time per block."""
    proved: int = 0
    """Number of blocks that were solved to proven optimality."""

    @property
    def density(self) -> float:
        """Share of the weights that is kept; NaN for an unfinished run."""
        return self.kept / self.size if self.size else float("nan")

    @property
    def gain(self) -> float:
        """Decrease of the loss by the accepted blocks: measured if known, else predicted."""
        return -(self.predicted if np.isnan(self.actual) else self.actual)


def sizes_of(masks: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return numbers of weights and of kept weights by layer, or of groups by dimension.

    Parameters
    ----------
    masks : mapping of str to Tensor of bool
    facts : mapping
        With ``groups``: dimension → numbers of groups and of kept groups.
    """
    if groups := facts.get("groups"):
        return {name: (int(total), int(kept)) for name, (total, kept) in groups.items()}
    return {name: (mask.numel(), int(mask.sum())) for name, mask in sorted(masks.items())}


def layer_figures(
    history: Iterable[BlockRecord], masks: Mapping[str, tuple[int, int]], *, by_pass: bool
) -> list[LayerFigures]:
    """Compute the figures of each layer from a history.

    Parameters
    ----------
    history : iterable of BlockRecord
    masks : mapping
        Layer name → numbers of weights and of kept weights; empty for an unfinished run.
    by_pass : bool
        Whether acceptance was decided for whole passes, so that the change of the held-out loss
        is not known for single layers.
    """
    rows: dict[str, list[BlockRecord]] = {name: [] for name in masks}
    for row in history:
        rows.setdefault(row.layer, []).append(row)
    found = []
    for name in sorted(rows, key=natural):
        own = rows[name]
        kept = [row for row in own if row.accepted]
        parts = [name] if name in masks else name.split(JOINED)  # a block of several layers
        if name == ALL_GROUPS:
            parts = list(masks)
        sizes = [masks.get(part, (0, 0)) for part in parts]
        found.append(
            LayerFigures(
                name=name,
                layers=1,
                size=sum(size for size, _ in sizes),
                kept=sum(weights for _, weights in sizes),
                blocks=len(own),
                accepted=len(kept),
                moved=sum(row.moved for row in kept),
                predicted=sum(row.predicted for row in kept),
                actual=float("nan") if by_pass else sum(row.actual for row in kept),
                milliseconds=1000 * float(np.median([row.solver_seconds for row in own] or [0.0])),
                proved=sum(row.proved for row in own),
            )
        )
    return found


def by_kind(layers: Sequence[LayerFigures]) -> list[LayerFigures]:
    """Sum layers with equal names except numbers, such as ``model.layers.*.mlp.up``."""
    return _grouped(layers, kind_name)


def by_depth(layers: Sequence[LayerFigures], most: int = 5) -> list[LayerFigures]:
    """Sum layers of neighbouring blocks of a stack, by the first number in their names.

    Parameters
    ----------
    layers : sequence of LayerFigures
    most : int
        Largest number of groups.
    """
    numbers = sorted({n for layer in layers if (n := _number(layer.name)) is not None})
    width = -(-len(numbers) // most) if numbers else 1
    first = {n: numbers[i - i % width] for i, n in enumerate(numbers)}
    last = {n: numbers[min(i - i % width + width, len(numbers)) - 1] for i, n in enumerate(numbers)}

    def group(name: str) -> str:
        n = _number(name)
        if n is None:
            return "other layers"
        return f"block {n}" if first[n] == last[n] else f"blocks {first[n]} to {last[n]}"

    return _grouped(layers, group)


def kind_name(name: str) -> str:
    """Replace the numbers in a dotted name by ``*``."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _number(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _grouped(layers: Sequence[LayerFigures], group: Callable[[str], str]) -> list[LayerFigures]:
    groups: dict[str, list[LayerFigures]] = {}
    for layer in layers:
        groups.setdefault(group(layer.name), []).append(layer)
    return [_sum(name, members) for name, members in groups.items()]


def _sum(name: str, members: Sequence[LayerFigures]) -> LayerFigures:
    return LayerFigures(
        name=name,
        layers=len(members),
        size=sum(layer.size for layer in members),
        kept=sum(layer.kept for layer in members),
        blocks=sum(layer.blocks for layer in members),
        accepted=sum(layer.accepted for layer in members),
        moved=sum(layer.moved for layer in members),
        predicted=sum(layer.predicted for layer in members),
        actual=sum(layer.actual for layer in members),
        milliseconds=float(np.median([layer.milliseconds for layer in members])),
        proved=sum(layer.proved for layer in members),
    )
