"""Sums over the blocks of each layer, updated row by row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from icbs.run.history import BlockRecord


@dataclass
class LayerSums:
    """Sums over the blocks of one layer."""

    blocks: int = 0
    accepted: int = 0
    """Number of accepted blocks."""
    moved: int = 0
    """Number of weights pruned or restored in accepted blocks."""
    predicted: float = 0.0
    actual: float = 0.0
    """Change of the loss by the accepted blocks, by the quadratic models and as measured. A
    measured change of a whole pass is divided among its layers in proportion to the predicted
    ones."""

    @property
    def gain(self) -> float:
        """Decrease of the loss by the accepted blocks: measured if known, else predicted."""
        return -(self.actual or self.predicted)


def add_rows(sums: dict[str, LayerSums], rows: Iterable[BlockRecord], *, by_pass: bool) -> None:
    """Add blocks to the sums of their layers.

    Parameters
    ----------
    sums : dict of str to LayerSums
    rows : iterable of BlockRecord
        Rows of whole passes.
    by_pass : bool
        Whether the measured change of a row is that of its whole pass.
    """
    kept = [row for row in rows if _add(sums, row)]
    totals: dict[int, float] = {}
    for row in kept:
        totals[row.step] = totals.get(row.step, 0.0) + row.predicted
    for row in kept:
        share = 1.0
        if by_pass:
            share = row.predicted / totals[row.step] if totals[row.step] else 0.0
        if row.actual == row.actual:  # NaN if not measured
            sums[row.layer].actual += share * row.actual


def _add(sums: dict[str, LayerSums], row: BlockRecord) -> bool:
    """Add all but the measured change; return whether the block was accepted and moved."""
    own = sums.setdefault(row.layer, LayerSums())
    own.blocks += 1
    own.accepted += row.accepted
    if row.accepted:
        own.moved += row.moved
        own.predicted += row.predicted
    return row.accepted and row.moved > 0
