"""The acceptance test: moves stay only if the loss on other samples does not rise.

A block at a time where the hold-out answers cheaply, or all moves of a pass together where
one evaluation of the loss costs as much as many blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from icbs.blocks.block import Block
from icbs.blocks.failures import failure_text
from icbs.config import PrunerConfig
from icbs.history import Row
from icbs.state import State
from icbs.workspace import Workspace
from solvers import BackendError, Solution, SolverError

Answer = Solution | SolverError


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

    def row(self, state: State, actual: float, *, accepted: bool) -> Row:
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
    return 3 if config.acceptance and config.acceptance_unit == "pass" and cautious else 1


def judge(
    work: Workspace, state: State, blocks: Sequence[Block], answers: Sequence[Answer]
) -> list[Row]:
    """Apply the answers of a pass, measure them, and keep them or restore the weights exactly.

    Returns
    -------
    list of Row
        Predicted and measured change of the loss, and the verdict, block by block.
    """
    moves = [Move.of(block, answer) for block, answer in zip(blocks, answers, strict=True)]
    if work.config.acceptance_unit == "pass":
        return _judge_together(work, state, moves)
    return [_judge_one(work, state, move) for move in moves]


def _judge_one(work: Workspace, state: State, move: Move) -> Row:
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
        accepted = actual <= 0 or not work.config.acceptance
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


def _judge_together(work: Workspace, state: State, moves: Sequence[Move]) -> list[Row]:
    """Keep all moves of a pass, or none; learn how far the model can be trusted."""
    able = [move for move in moves if len(move.index)]
    # What a solver failed at says nothing about the model.
    answered = [move for move in moves if isinstance(move.answer, Solution)]
    layers, factor = [move.block.layer for move in answered], work.config.caution
    if not able:
        # κ was too large for any move to pay.
        state.trust(layers, math.inf, factor)
        return [move.row(state, 0.0, accepted=False) for move in moves]
    accepted = False
    try:
        for move in able:
            move.do()
        loss = work.holdout.measure()
        actual = loss - state.loss
        accepted = actual <= 0 or not work.config.acceptance
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
