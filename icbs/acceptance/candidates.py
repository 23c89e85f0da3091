"""Choice among several states of a solver by their held-out loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from icbs.acceptance.move import Answer, Move
from icbs.blocks.block import Block
from solvers import Solution
from solvers.solution import Status

if TYPE_CHECKING:
    from icbs.run.context import RunContext


def best_move(context: RunContext, block: Block, answer: Answer, number: int) -> Move:
    """Return the move to the state with the lowest held-out loss, among the ``number`` best.

    States of slightly higher energy are often better, as the quadratic model is not the loss
    (arXiv 2602.00161). Under a budget, a state that prunes more than the budget asks for is also
    tried with the groups that fit into the budget, as its gain may be an error of the model. With
    one candidate, nothing is measured.
    """
    moves = list(_candidates(block, answer, number))
    if len(moves) == 1:
        return moves[0]
    losses = []
    for move in moves:
        move.apply()
        try:
            move.loss = context.holdout.measure()
        finally:
            move.undo()
        losses.append(move.loss)
    if context.holdout.remember:
        context.holdout.measure()  # its cache is of the last candidate
    return moves[min(range(len(moves)), key=losses.__getitem__)]


def _candidates(block: Block, answer: Answer, number: int) -> Iterator[Move]:
    """Yield the moves to the best states of an answer, each once, the best first."""
    yield (first := Move.of(block, answer))
    if not isinstance(answer, Solution) or not first.answered:
        return
    assert answer.x is not None
    within, _ = block.within_budget(answer.x, answer.energy)
    filled = block.filled(within)
    if filled.tobytes() != within.tobytes():
        move = _to(block, answer, filled, float(block.problem.energy(filled)))
        move.repaired = True
        yield move
    seen = {answer.x.tobytes()}
    for state, energy in zip(answer.samples, answer.energies, strict=True):
        if len(seen) >= number:
            return
        if state.tobytes() in seen or not block.keeps_counts(state):
            continue
        seen.add(state.tobytes())
        yield _to(block, answer, state, float(energy))


def _to(block: Block, answer: Solution, state: npt.NDArray[np.uint8], energy: float) -> Move:
    """Return the move to another state than that of an answer."""
    return Move.of(block, replace(answer, x=state, energy=energy, status=Status.FEASIBLE))
