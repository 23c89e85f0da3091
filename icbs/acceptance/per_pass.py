"""All blocks of a pass are judged together.

For a model of hundreds of layers one evaluation of the held-out loss costs as much as all
blocks of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icbs.acceptance.move import Move
from icbs.acceptance.rule import AcceptanceRule
from icbs.run.history import Row

if TYPE_CHECKING:
    from icbs.config import AcceptanceSettings
    from icbs.run.context import RunContext
    from icbs.run.state import RunState


class PerPass(AcceptanceRule):
    """Keep all moves of a pass if the held-out loss does not rise; else try with more damping."""

    lowers_damping_at_once = True

    def __init__(self, settings: AcceptanceSettings, *, models_loss: bool) -> None:
        super().__init__(settings, models_loss=models_loss)
        # Without damping of a model of the loss the same problems would come again.
        self.attempts = 3 if models_loss and self.damping.factor > 1 else 1

    def decide(self, context: RunContext, state: RunState, moves: Sequence[Move]) -> list[Row]:
        """Apply all moves, measure once, and keep all or none."""
        able = [move for move in moves if move.size]
        if not able:
            return [move.row(state, 0.0, accepted=False) for move in moves]
        accepted = False
        try:
            for move in able:
                move.apply()
            loss = context.holdout.measure()
            actual = loss - state.loss
            accepted = actual <= 0
        finally:
            if not accepted:
                for move in able:
                    move.undo()
        if accepted:
            state.loss = loss
            state.keep_best(context.layers)
        predicted = sum(move.predicted for move in able)
        gain_ratio = actual / predicted if predicted < 0 else 0.0
        if self.models_loss:  # else the prediction is of something else than the loss
            # A failed solver tells nothing about the model.
            blocks = [move.block for move in moves if move.answered]
            names = [layer.name for block in blocks for layer in block.gates.layers]
            self.damping.update_trust_region(dict.fromkeys(names), gain_ratio)
        return [move.row(state, actual, accepted=accepted and move.size > 0) for move in moves]
