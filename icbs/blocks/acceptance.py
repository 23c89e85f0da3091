"""The acceptance test: moves stay only if the loss on other samples does not rise.

A block at a time where the hold-out answers cheaply, or all moves of a pass together where
one evaluation of the loss costs as much as many blocks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from icbs.blocks.block import Block
from icbs.blocks.failures import failure_text
from icbs.config import PrunerConfig
from icbs.errors import NothingMovesWarning
from icbs.formatting import counted
from icbs.run.context import RunContext
from icbs.run.history import Row
from icbs.run.state import RunState
from solvers import BackendError, Solution, SolverError

Answer = Solution | SolverError
IDLE = 3
"""Passes in a row that move nothing before κ is lowered, and, from the beginning, a warning."""
AT_REST = 10
"""The same before a warning, where weights have moved before."""


@dataclass
class Move:
    """A solver's answer to a block, as weights that change sides.

    Where the solver failed or returned nothing feasible the status quo stays, and the
    failure is recorded.
    """

    block: Block
    answer: Answer
    energy: float
    """Energy of the answer."""
    predicted: float
    """Change of the loss by the quadratic model."""
    index: Tensor
    """Flat indices of the weights that move, shape (moved,)."""
    pruned: Tensor
    """Which of them are pruned by it; the others come back."""

    @classmethod
    def of(cls, block: Block, answer: Answer) -> Move:
        """Read an answer."""
        answer = _checked(block, answer)
        x, energy = block.start, 0.0
        if isinstance(answer, Solution) and answer.x is not None:
            x, energy = answer.x, answer.energy
        moved = torch.from_numpy(np.flatnonzero(x != block.start))
        sides = torch.from_numpy(x.astype(bool))[moved]
        device = block.index.device
        index, pruned = block.index[moved.to(device)], sides.to(device)
        return cls(block, answer, energy, block.predicted(x, energy), index, pruned)

    def do(self) -> None:
        """Move the weights."""
        self.block.layer.set_block(self.index, self.pruned)

    def undo(self) -> None:
        """Restore them exactly."""
        self.block.layer.set_block(self.index, ~self.pruned)

    def row(self, state: RunState, actual: float, *, accepted: bool) -> Row:
        """Record what became of the move."""
        return Row(
            step=state.step,
            samples=state.looked,
            layer=self.block.layer.name,
            n=self.block.problem.n,
            k=self.block.problem.k,
            moved=len(self.index),
            predicted=self.predicted,
            actual=actual,
            accepted=accepted,
            energy=self.energy,
            failure=failure_text(self.answer) if isinstance(self.answer, SolverError) else "",
            solver_seconds=self.answer.timing.total if isinstance(self.answer, Solution) else 0.0,
            seconds=state.seconds,
        )


def attempts(config: PrunerConfig) -> int:
    """How often the blocks of a pass may be solved, more cautiously each time, until kept."""
    # Caution weighs the Fisher; without it the same problem would come again.
    cautious = config.caution > 1 and config.curvature != "gram"
    return 3 if config.acceptance == "pass" and cautious else 1


def judge(
    work: RunContext, state: RunState, blocks: Sequence[Block], answers: Sequence[Answer]
) -> list[Row]:
    """Apply the answers of a pass, measure them, and keep them or restore the weights exactly.

    Returns
    -------
    list of Row
        Predicted and measured change of the loss, and the verdict, block by block.
    """
    moves = [Move.of(block, answer) for block, answer in zip(blocks, answers, strict=True)]
    if work.config.acceptance_unit == "pass":
        rows = _judge_together(work, state, moves)
    else:
        rows = [_judge_one(work, state, move) for move in moves]
    if rows and not any(row.moved or row.failure for row in rows):
        _learn_from_nothing(work, state, rows)
    return rows


def _learn_from_nothing(work: RunContext, state: RunState, rows: Sequence[Row]) -> None:
    """Lower κ where passes move nothing from the beginning, or one after another; warn of it."""
    config = work.config
    idle = _idle(chain(reversed(rows), reversed(state.history)))
    never = not any(row.moved for row in state.history)
    names = {row.layer for row in rows}
    # A single pass that moves nothing may have had its best weights on the tabu list.
    lowered = config.acceptance_unit == "pass" or never or idle >= IDLE
    if lowered and config.curvature != "gram":
        layers = [layer for layer in work.layers if layer.name in names]
        state.trust(layers, math.inf, config.caution)
    if state.warned or idle < (min(IDLE, config.passes) if never else AT_REST):
        return
    state.warned = True
    kappa = config.curvature_weight or float(len(rows))
    kappa *= min(state.caution.get(name, 1.0) for name in names)
    warnings.warn(
        f"{counted(idle, 'pass')} in a row moved no weight of any layer, up to pass "
        f"{state.step}: either exchanges within blocks can't make the masks any better, or the "
        "curvature outweighs the gradient, as it does for a loss that is far from nats. If "
        f"this is early in a run, lower curvature_weight (now {kappa:.3g}), or scale the loss",
        NothingMovesWarning,
        stacklevel=6,
    )


def _idle(latest: Iterable[Row]) -> int:
    """Count the last passes in which nothing moved, from their rows, the latest first."""
    steps: set[int] = set()
    for row in latest:
        if row.moved or row.failure:
            return len(steps - {row.step})
        steps.add(row.step)
    return len(steps)


def _judge_one(work: RunContext, state: RunState, move: Move) -> Row:
    if not len(move.index):
        return move.row(state, 0.0, accepted=False)
    layer = move.block.layer
    dense = layer.dense[layer.unravel(move.index)]
    move.do()
    accepted = False
    try:
        change = torch.where(move.pruned, -dense, dense)
        loss = work.holdout.trial(layer, move.index, change)
        actual = loss - state.loss
        accepted = actual <= 0 or work.config.acceptance == "off"
    finally:
        # Also on an interruption: the weights never outlive a move that was not accepted.
        if not accepted:
            move.undo()
    if accepted:
        work.holdout.commit()
        state.loss = loss
        state.remember(work.layers)
    state.learn(layer, accepted=accepted, factor=work.config.caution)
    return move.row(state, actual, accepted=accepted)


def _judge_together(work: RunContext, state: RunState, moves: Sequence[Move]) -> list[Row]:
    """Keep all moves of a pass, or none; learn how far the model can be trusted."""
    able = [move for move in moves if len(move.index)]
    # What a solver failed at says nothing about the model.
    answered = [move for move in moves if isinstance(move.answer, Solution)]
    layers, factor = [move.block.layer for move in answered], work.config.caution
    if not able:  # see _learn_from_nothing
        return [move.row(state, 0.0, accepted=False) for move in moves]
    accepted = False
    try:
        for move in able:
            move.do()
        loss = work.holdout.measure()
        actual = loss - state.loss
        accepted = actual <= 0 or work.config.acceptance == "off"
    finally:
        if not accepted:
            for move in able:
                move.undo()
    predicted = sum(move.predicted for move in able)
    worth = actual / predicted if predicted < 0 else 0.0
    if accepted:
        state.loss = loss
        state.remember(work.layers)
    if work.config.curvature != "gram":  # which predicts another thing than was measured
        state.trust(layers, worth, factor)
    return [move.row(state, actual, accepted=accepted and move in able) for move in moves]


def _checked(block: Block, answer: Answer) -> Answer:
    """Turn an answer that holds no move into the error that it is."""
    if isinstance(answer, SolverError):
        return answer
    name = answer.info.get("solver")
    if answer.x is None:
        return BackendError(
            f"solver {name!r} returned {len(answer.samples)} states, and none has the right "
            f"number of ones (it stopped by: {answer.stop.value})"
        )
    if not block.keeps_counts(answer.x):
        return BackendError(f"solver {name!r} returned a state that would change the density")
    return answer
