"""Each block is judged for itself, where the held-out loss of one block costs little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icbs.acceptance.move import Move
from icbs.acceptance.rule import AcceptanceRule
from icbs.run.history import Row

if TYPE_CHECKING:
    from icbs.run.context import RunContext
    from icbs.run.state import RunState


class PerBlock(AcceptanceRule):
    """Keep the move of a block if the held-out loss does not rise."""

    def decide(self, context: RunContext, state: RunState, moves: Sequence[Move]) -> list[Row]:
        """Judge move after move."""
        return [self._decide(context, state, move) for move in moves]

    def keeps(self, actual: float) -> bool:
        """Whether a move with this change of the held-out loss is kept."""
        return actual <= 0

    def _decide(self, context: RunContext, state: RunState, move: Move) -> Row:
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
            # Also on an interruption: the weights never outlive a move that was not accepted.
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
    """Keep every move; the held-out loss is measured all the same."""

    def keeps(self, actual: float) -> bool:
        """Return True."""
        return True
