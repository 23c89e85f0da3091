"""Acceptance block by block, for models whose held-out loss is cheap to evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icbs.acceptance.move import Move
from icbs.acceptance.rule import AcceptanceRule
from icbs.run.history import BlockRecord

if TYPE_CHECKING:
    from icbs.run.context import RunContext
    from icbs.run.state import RunState


class PerBlock(AcceptanceRule):
    """Keep the move of a block if the held-out loss does not increase."""

    def decide(
        self, context: RunContext, state: RunState, moves: Sequence[Move]
    ) -> list[BlockRecord]:
        """Evaluate the moves one after another."""
        return [self._decide(context, state, move) for move in moves]

    def keeps(self, actual: float) -> bool:
        """Whether a move with this change of the held-out loss is kept."""
        return actual <= 0

    def _decide(self, context: RunContext, state: RunState, move: Move) -> BlockRecord:
        if not move.size:
            return move.row(state, 0.0, accepted=False)
        differences = [(c.layer, c.index, c.difference) for c in move.changes]
        accepted = False
        move.apply()
        try:
            loss = context.holdout.trial(differences)
            actual = loss - state.loss
            accepted = self.keeps(actual)
        finally:
            # Also after an interruption: a move that was not accepted is always undone.
            if not accepted:
                move.undo()
        if accepted:
            context.holdout.commit()
            state.loss = loss
            state.keep_best(context.layers)
        names = [layer.name for layer in move.block.gates.layers]
        self.damping.update(names, accepted=accepted)
        return move.row(state, actual, accepted=accepted)


class KeepAll(PerBlock):
    """Keep every move; the held-out loss is still measured."""

    def keeps(self, actual: float) -> bool:
        """Return True."""
        return True
