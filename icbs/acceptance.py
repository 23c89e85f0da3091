"""The acceptance test: a move stays only if the loss on other samples does not rise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from icbs.block import Block
from icbs.history import Row
from icbs.state import State, Workspace
from solvers import Solution, SolverError


def judge(work: Workspace, state: State, block: Block, answer: Solution | SolverError) -> Row:
    """Apply a solver's answer, measure it, and keep it or restore the weights exactly.

    Where the solver failed or returned nothing feasible the status quo stays, and the
    failure is recorded.

    Returns
    -------
    Row
        Predicted and measured change of the loss, and the verdict.
    """
    x, energy = block.start, 0.0
    if isinstance(answer, Solution) and answer.x is not None:
        x, energy = answer.x, answer.energy
    moved = np.flatnonzero(x != block.start)
    actual, accepted = 0.0, False
    if len(moved):
        index = block.index[torch.from_numpy(moved).to(block.index.device)]
        pruned = torch.from_numpy(x[moved].astype(bool)).to(block.index.device)
        actual, accepted = _try(work, state, block, index, pruned)
        state.learn(block.layer, accepted=accepted, factor=work.config.caution)
    return Row(
        step=state.step,
        layer=block.layer.name,
        n=block.problem.n,
        k=block.problem.k,
        moved=len(moved),
        predicted=block.predicted(x, energy),
        actual=actual,
        accepted=accepted,
        energy=energy,
        failure=_failure(answer),
        solver_seconds=answer.timing.total if isinstance(answer, Solution) else 0.0,
        seconds=state.seconds,
    )


def _try(
    work: Workspace, state: State, block: Block, index: Tensor, pruned: Tensor
) -> tuple[float, bool]:
    """Move weights at flat ``index``, all of which change sides; undo it if the loss rises."""
    layer = block.layer
    rows, columns = layer.unravel(index)
    dense = layer.dense[rows, columns]
    layer.set_block(index, pruned)
    accepted = False
    try:
        loss = work.holdout.trial(layer, index, torch.where(pruned, -dense, dense))
        actual = loss - state.loss
        accepted = actual <= 0 or not work.config.acceptance
    finally:
        # Also on an interruption: the weights never outlive a move that was not accepted.
        if not accepted:
            layer.set_block(index, ~pruned)
    if accepted:
        work.holdout.commit()
        state.loss = loss
        state.remember(work.layers)
    return actual, accepted


def _failure(answer: Solution | SolverError) -> str:
    if isinstance(answer, SolverError):
        return type(answer).__name__
    return "" if answer.x is not None else "NoFeasibleSample"
