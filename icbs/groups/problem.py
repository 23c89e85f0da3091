"""Initial masks by the problem of all groups at the dense model.

With the Fisher information F as curvature and all gates open, ``min ½ xᵀFx`` within the density or
budget is the problem of Kwon et al. 2022 (arXiv 2204.09656, equation 9), with the terms between
layers that their search leaves out. The gradient of a trained model is noise there, and is left
out. From fewer samples than groups the off-diagonal terms are overfitted, so that they are shrunk
(:mod:`icbs.groups.coupling`). Overfitted terms also reward pruning more than a budget asks for, so
that such a state is tried with the groups that fit into the budget as well, and the state without
couplings too. The held-out loss decides.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np

from icbs import parallel, streams
from icbs.blocks.block import build_block
from icbs.curvature.passes import Pass
from icbs.groups.coupling import estimated_coupling
from icbs.groups.density import best_state, keep_floors, number_kept
from icbs.groups.grouping import State
from icbs.groups.scores import Float
from icbs.run.context import RunContext
from problems import BudgetQUBO, CardinalityQUBO
from solvers import SolverError, solve

log = logging.getLogger("icbs")


def whole_problem(
    context: RunContext, pass_info: Pass, coupling: float
) -> CardinalityQUBO | BudgetQUBO:
    """Build the problem of all groups at masks that keep all of them.

    Parameters
    ----------
    context : RunContext
    pass_info : Pass
        With the curvature of all gates.
    coupling : float
        Factor on the off-diagonal terms of the loss.
    """
    grouping = context.grouping
    assert grouping is not None
    gates = grouping.block(np.arange(grouping.count))
    pools = grouping.pools
    ones: Any = [len(p.members) - number_kept(p, context.config) for p in pools]
    ones = np.array(ones) if len(ones) > 1 else ones[0]
    models = pass_info.models(gates)
    return build_block(gates, models, gamma=0.0, coupling=coupling, ones=ones).problem


def best_start(context: RunContext, pass_info: Pass, scores: Float) -> State:
    """Return the initial state with the lowest held-out loss, with couplings or without.

    Parameters
    ----------
    context : RunContext
        All groups are kept.
    pass_info : Pass
    scores : array, shape (groups,)
        Diagonal of the curvature, which gives the state without couplings.
    """
    grouping = context.grouping
    assert grouping is not None
    states = {"without couplings": best_state(grouping, scores, context.config)}
    coupling = estimated_coupling(pass_info.models(grouping.block(np.arange(grouping.count))))
    problem = whole_problem(context, pass_info, coupling)
    limits = grouping.gates.limits
    found = parallel.broadcast_from_rank0(partial(_solved, context, problem))
    if found is not None:
        name = f"couplings x {coupling:.2f}"
        states[name] = keep_floors(grouping, found, scores)
        if limits is not None and isinstance(problem, BudgetQUBO):
            filled = limits.filled(states[name], problem)
            if (filled != states[name]).any():
                states[f"{name}, rest of the budget filled"] = filled
    losses = {}
    for name, state in states.items():
        grouping.close(state)
        losses[name] = context.holdout.measure()
        log.info("initial masks, %s: held-out loss %.4g", name, losses[name])
    return states[min(losses, key=losses.__getitem__)]


def _solved(context: RunContext, problem: CardinalityQUBO | BudgetQUBO) -> State | None:
    """Solve by the solver of the run; None if that fails."""
    grouping, config, solver = context.grouping, context.config, context.solver
    assert grouping is not None
    assert solver is not None
    request: dict[str, Any] = {}
    if solver.capabilities.seed:
        request["seed"] = streams.solver_seed(config.seed, 0)
    if config.solver_time_limit is not None:
        request["time_limit"] = config.solver_time_limit
    try:
        found = solve(problem, solver, **request).x
    except SolverError as error:
        log.warning("the problem of the initial masks was not solved: %s", error)
        return None
    limits = grouping.gates.limits
    if found is None or limits is None or not isinstance(problem, BudgetQUBO):
        return found
    return limits.repaired(found, problem)
