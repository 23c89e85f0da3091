"""The problem of all groups at the dense model, whose solution is an initial mask.

With the Fisher information as curvature and all gates open this is the problem of Kwon et al. 2022
(arXiv 2204.09656, equation 9), with the terms between layers that their search leaves out.
"""

from __future__ import annotations

import numpy as np

from icbs import parallel, streams
from icbs.blocks.block import Block, build_block
from icbs.curvature.passes import Pass
from icbs.errors import SolverFailureError
from icbs.groups.density import number_kept
from icbs.groups.grouping import State
from icbs.run.context import RunContext
from solvers import SolverError, solve


def whole_problem(context: RunContext, pass_info: Pass) -> Block:
    """Build the problem of all groups at the current masks, which keep all groups.

    Energies are predicted increases of the loss.
    """
    grouping, config = context.grouping, context.config
    assert grouping is not None
    gates = grouping.block(np.arange(grouping.count))
    pools = grouping.pools
    ones = np.array([len(pool.members) - number_kept(pool, config) for pool in pools])
    return build_block(
        gates,
        pass_info.models(gates),
        gamma=config.paper.gradient_weight,
        kappa=config.curvature_weight or 1.0,
        ones=ones if len(ones) > 1 else ones[0],
    )


def solved_state(context: RunContext, pass_info: Pass) -> State:
    """Solve the problem of all groups by the solver of the run.

    Raises
    ------
    SolverFailureError
        If the solver fails.
    """
    grouping, config, solver = context.grouping, context.config, context.solver
    assert grouping is not None
    assert solver is not None
    block = whole_problem(context, pass_info)
    request = {"seed": streams.solver_seed(config.seed, 0)} if solver.capabilities.seed else {}
    if config.solver_time_limit is not None:
        request["time_limit"] = config.solver_time_limit

    def run() -> State | None:
        try:
            answer = solve(block.problem, solver, **request).x
        except SolverError as error:
            raise SolverFailureError(
                f"the problem of the initial masks failed: {error}; use initial='fisher'"
            ) from error
        return None if answer is None else block.within_budget(answer, 0.0)[0]

    state = parallel.broadcast_from_rank0(run)
    if state is None:
        raise SolverFailureError(
            f"solver {solver.name!r} found no initial masks within the density or budget; use "
            "initial='fisher'"
        )
    return state

