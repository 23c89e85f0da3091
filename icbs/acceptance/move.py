"""A solver's answer to a block, as weights to prune and to restore."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from icbs.blocks.block import Block
from icbs.blocks.failures import failure_text
from icbs.model.gates import Change
from icbs.run.history import BlockRecord
from solvers import BackendError, Solution, SolverError

if TYPE_CHECKING:
    from icbs.run.state import RunState

Answer = Solution | SolverError


@dataclass
class Move:
    """The gates that an answer opens and closes.

    If the solver failed or returned no feasible state, the mask is unchanged and the failure is
    recorded.
    """

    block: Block
    answer: Answer
    energy: float
    """Energy of the answer."""
    predicted: float
    """Change of the loss predicted by the quadratic model."""
    changes: list[Change]
    """Weights that are pruned or restored, layer by layer."""
    size: int
    """Number of gates that move."""
    loss: float | None = None
    """Held-out loss after this move alone, if it was measured."""
    repaired: bool = False
    """Whether the state is not one of the solver's, but changed to hold the budget."""

    @classmethod
    def of(cls, block: Block, answer: Answer) -> Move:
        """Build the move from an answer."""
        x, energy, repaired = block.start, 0.0, False
        answer = _checked(block, answer)
        if isinstance(answer, Solution) and answer.x is not None:
            x, energy = block.within_budget(answer.x, answer.energy)
            repaired = bool((x != answer.x).any())
        moved = np.flatnonzero(x != block.start)
        changes = block.gates.changes(moved, x.astype(bool)[moved])
        predicted = block.predicted(x, energy)
        return cls(block, answer, energy, predicted, changes, len(moved), repaired=repaired)

    def apply(self) -> None:
        """Apply the changes to the layers."""
        for change in self.changes:
            change.apply()

    def undo(self) -> None:
        """Restore the layers exactly."""
        for change in self.changes:
            change.undo()

    @cached_property
    def answered(self) -> bool:
        """Whether the solver answered; failures are excluded from damping updates."""
        return isinstance(self.answer, Solution)

    def row(self, state: RunState, actual: float, *, accepted: bool) -> BlockRecord:
        """Record the outcome of the move."""
        solution = self.answer if isinstance(self.answer, Solution) else None
        proved = solution is not None and solution.is_optimal
        bound = solution.bound if solution else None
        # A bound of the linearised problem is none for other states.
        repaired = self.repaired and (proved or bound is not None)
        return BlockRecord(
            step=state.step,
            samples=state.num_samples,
            layer=self.block.name,
            n=self.block.problem.n,
            k=self.block.pruned,
            moved=self.size,
            predicted=self.predicted,
            actual=actual,
            accepted=accepted,
            energy=self.energy,
            failure=failure_text(self.answer) if isinstance(self.answer, SolverError) else "",
            solver_seconds=solution.timing.total if solution else 0.0,
            seconds=state.seconds,
            proved=proved and not repaired,
            bound=None if repaired else bound,
            attempt=state.attempt,
            evaluations=_evaluations(solution),
            repaired=repaired,
        )


def _evaluations(solution: Solution | None) -> int | None:
    found = None if solution is None else solution.info.get("evaluations")
    return found if isinstance(found, int) else None


def _checked(block: Block, answer: Answer) -> Answer:
    """Convert an answer without a feasible state into an error."""
    if isinstance(answer, SolverError):
        return answer
    name = answer.info.get("solver")
    if answer.x is None:
        return BackendError(
            f"solver {name!r} returned {len(answer.samples)} states, and none has the right "
            f"number of ones (it stopped by: {answer.stop.value})"
        )
    if not block.keeps_counts(block.within_budget(answer.x, 0.0)[0]):
        return BackendError(f"solver {name!r} returned a state that would change the density")
    return answer
