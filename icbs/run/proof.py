"""Proofs of optimality in a run: the blocks that were solved to the optimum of their model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from icbs.formatting import counted, significant
from icbs.run.history import BlockRecord

OPTIMAL = "optimal for the quadratic model"


@dataclass(frozen=True)
class Proof:
    """Number of blocks with proven optimality, and the last block whose solution is in the masks.

    A proof is about the quadratic model of a block, not about the loss; see
    :func:`icbs.true_optimum` for the latter.
    """

    blocks: int
    """Number of blocks that the solver solved, with or without a proof."""
    proved: int
    """Number of blocks that were solved to proven optimality."""
    last: BlockRecord | None
    """The last block whose solution was accepted, or left all weights as they were; None if
    there is none."""
    repaired: int = 0
    """Number of blocks whose solution was changed to hold the budget, see
    :attr:`icbs.run.history.BlockRecord.repaired`."""

    @classmethod
    def of(cls, history: Sequence[BlockRecord]) -> Proof:
        """Return the proofs of a history."""
        solved = [row for row in history if not row.failure]
        kept = [row for row in solved if row.accepted or not row.moved]
        last = kept[-1] if kept else None
        proved, repaired = (
            sum(getattr(row, name) for row in solved) for name in ("proved", "repaired")
        )
        return cls(len(solved), proved, last, repaired)

    @property
    def optimal(self) -> bool:
        """Whether the last solution that is in the masks is proven optimal."""
        return self.last is not None and self.last.proved

    @property
    def gap(self) -> float | None:
        """Gap of that solution (:attr:`icbs.run.history.BlockRecord.gap`), or None."""
        return None if self.last is None else self.last.gap

    def __bool__(self) -> bool:
        """Whether there is anything to report: a proof, or a bound on the last block."""
        return bool(self.proved or self.repaired) or self.gap is not None

    def __str__(self) -> str:
        if not self:
            return ""
        share = f"{self.proved:,} of {counted(self.blocks, 'block')} solved to proven optimality"
        if self.repaired:
            share += (
                f"; in {self.repaired:,} the problem with a linearised cost was solved, and the "
                "solution changed to hold the budget"
            )
        if self.optimal and self.proved == self.blocks:
            return f"{OPTIMAL}: every block solved to proven optimality"
        if self.optimal:
            return f"{OPTIMAL}: the last accepted block, and {share}"
        if self.last is None:
            return f"no solution accepted; {share}"
        if self.last.bound is None:
            return f"not proved {OPTIMAL}: {share}"
        energy = significant(self.last.energy if self.last.moved else 0.0)
        gap = f", gap {self.gap:.2%}" if self.last.moved else ""
        return (
            f"not proved {OPTIMAL}: energy {energy}, bound {significant(self.last.bound)}{gap} in "
            f"the last accepted block; {share}"
        )
