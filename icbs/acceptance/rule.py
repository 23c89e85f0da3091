"""Interface of acceptance rules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from icbs.acceptance.candidates import best_move
from icbs.acceptance.damping import Damping
from icbs.acceptance.idle import AT_REST, IDLE, count_idle, warn_idle
from icbs.acceptance.move import Answer, Move
from icbs.blocks.block import Block
from icbs.run.history import BlockRecord

if TYPE_CHECKING:
    from icbs.config import AcceptanceSettings
    from icbs.run.context import RunContext
    from icbs.run.state import RunState


class AcceptanceRule(ABC):
    """Selects the moves of a pass that are kept; owns its number of attempts and its state.

    A new rule is one class, and an entry of ``icbs.plugins.ACCEPTANCES``, an entry point of the
    group ``icbs.acceptance``, or a call of ``ACCEPTANCES.register``.
    :func:`icbs.testing.check_acceptance` tests a rule.

    Parameters
    ----------
    settings : AcceptanceSettings
    models_loss : bool
        Whether the predictions of the blocks are changes of the loss; if not, the damping is not
        adapted to measured losses.
    """

    attempts: int = 1
    """Maximum number of times that the blocks of a pass are solved, with increasing damping."""
    lowers_damping_at_once: bool = False
    """Whether a single pass that moves nothing lowers the damping."""

    def __init__(self, settings: AcceptanceSettings, *, models_loss: bool) -> None:
        self.models_loss = models_loss
        self.damping = Damping(settings.damping)
        self.warned = False

    def judge(
        self,
        context: RunContext,
        state: RunState,
        blocks: Sequence[Block],
        answers: Sequence[Answer],
    ) -> list[BlockRecord]:
        """Apply the answers of a pass, measure the held-out loss, keep the moves or undo them.

        Sets ``state.loss`` and the best masks of the state.

        Returns
        -------
        list of BlockRecord
            Predicted and measured change of the loss, and whether the move was accepted, for each
            block.
        """
        number = context.config.candidates
        pairs = zip(blocks, answers, strict=True)
        moves = [best_move(context, block, answer, number) for block, answer in pairs]
        rows = self.decide(context, state, moves)
        if rows and not any(row.moved or row.failure for row in rows):
            self._nothing_moved(context, state, blocks, rows)
        return rows

    @abstractmethod
    def decide(
        self, context: RunContext, state: RunState, moves: Sequence[Move]
    ) -> list[BlockRecord]:
        """Apply and evaluate moves; undo those that are rejected, also after an interruption."""

    def settled(self, rows: Sequence[BlockRecord]) -> bool:
        """Whether a pass needs no further attempt."""
        return any(row.accepted for row in rows) or not any(row.moved for row in rows)

    def facts(self) -> dict[str, Any]:
        """Return the state of the rule, as plain values for a checkpoint."""
        return {"damping": dict(self.damping.by_layer), "warned": self.warned}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`facts` returned."""
        self.damping.by_layer = {name: float(value) for name, value in facts["damping"].items()}
        self.warned = bool(facts["warned"])

    def _nothing_moved(
        self,
        context: RunContext,
        state: RunState,
        blocks: Sequence[Block],
        rows: Sequence[BlockRecord],
    ) -> None:
        """Lower the damping and warn if passes move no weight, at the start or consecutively."""
        idle = count_idle(chain(reversed(rows), reversed(state.history)))
        never = not any(row.moved for row in state.history)
        names = {layer.name for block in blocks for layer in block.gates.layers}
        # After a single pass without a move, the best weights may just be on the tabu list.
        lowered = self.lowers_damping_at_once or never or idle >= IDLE
        if lowered and self.models_loss:
            self.damping.update_trust_region(names, math.inf)
        if self.warned or idle < (min(IDLE, context.config.passes) if never else AT_REST):
            return
        self.warned = True
        kappa = context.config.curvature_weight or float(len(rows))
        kappa *= min(self.damping.of([name]) for name in names)
        warn_idle(idle, state.step, kappa)
