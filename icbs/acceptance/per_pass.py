"""Acceptance of all blocks of a pass together.

In a model of hundreds of layers one evaluation of the held-out loss costs as much as all blocks
of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icbs.acceptance.move import Move
from icbs.acceptance.rule import AcceptanceRule
from icbs.run.history import BlockRecord

if TYPE_CHECKING:
    from icbs.config import AcceptanceSettings
    from icbs.run.context import RunContext
    from icbs.run.state import RunState


class PerPass(AcceptanceRule):
    """Keep all moves of a pass if the held-out loss does not increase; else raise the damping."""

    lowers_damping_at_once = True

    def __init__(self, settings: AcceptanceSettings, *, models_loss: bool) -> None:
        super().__init__(settings, models_loss=models_loss)
        # Without damping, or without a model of the loss, a retry would solve the same problems.
        self.attempts = 3 if models_loss and self.damping.factor > 1 else 1

    def decide(
        self, context: RunContext, state: RunState, moves: Sequence[Move]
    ) -> list[BlockRecord]:
        """Apply all moves, measure once, and keep all or none."""
        moving = [move for move in moves if move.size]
        if not moving:
            return [move.row(state, 0.0, accepted=False) for move in moves]
        accepted = False
        try:
            for move in moving:
                move.apply()
            known = moving[0].loss if len(moving) == 1 else None
            loss = context.holdout.measure() if known is None else known
            actual = loss - state.loss
            accepted = actual <= 0
        finally:
            if not accepted:
                for move in moving:
                    move.undo()
        if accepted:
            state.loss = loss
            state.keep_best(context.layers)
        predicted = sum(move.predicted for move in moving)
        gain_ratio = actual / predicted if predicted < 0 else 0.0
        if self.models_loss:  # otherwise the prediction is not a change of the loss
            # A solver failure gives no information about the quadratic model.
            blocks = [move.block for move in moves if move.answered]
            names = [layer.name for block in blocks for layer in block.gates.layers]
            self.damping.update_trust_region(dict.fromkeys(names), gain_ratio)
        return [move.row(state, actual, accepted=accepted and move.size > 0) for move in moves]
