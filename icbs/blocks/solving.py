"""The blocks of a pass, handed to the solver side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from icbs import parallel
from icbs.blocks.block import Block
from icbs.config import PrunerConfig
from solvers import Solution, Solver, SolverError, UnsupportedError, solve_each
from solvers.errors import blaming


def check_solver(solver: Solver, config: PrunerConfig) -> None:
    """Refuse a solver that could not take a single block of the run.

    Raises
    ------
    UnsupportedError
        Naming the setting to change.
    BackendError
        If it needs something that is not set up; see :meth:`solvers.Solver.check_ready`.
    """
    can = solver.capabilities
    if can.max_n is not None and config.block_size > can.max_n:
        raise UnsupportedError(
            f"block_size is {config.block_size}, but solver {solver.name!r} takes at most "
            f"{can.max_n} variables; set block_size={can.max_n} or less"
        )
    if config.constraint != "layer" and not can.groups:
        raise UnsupportedError(
            f"constraint={config.constraint!r} needs a solver that holds several "
            f"cardinalities, and {solver.name!r} holds one; use constraint='layer'"
        )
    if config.solver_time_limit is not None and not can.time_limit:
        raise UnsupportedError(
            f"solver {solver.name!r} can't honour a time limit; leave solver_time_limit out"
        )
    if parallel.rank() == 0:  # which alone solves
        with blaming(solver.name, "is not ready"):
            solver.check_ready()


def solve_blocks(
    blocks: Sequence[Block],
    solver: Solver,
    config: PrunerConfig,
    step: int,
    executor: Executor | None = None,
) -> list[Solution | SolverError]:
    """Solve the blocks of a pass; a failure takes the place of its own block's answer alone.

    Parameters
    ----------
    blocks : sequence of Block
    solver : Solver
    config : PrunerConfig
    step : int
        The pass, from which the solver's seed is derived.
    executor : concurrent.futures.Executor, optional
        Where the blocks are solved, side by side; see :func:`solvers.solve`.

    Returns
    -------
    list of Solution or SolverError
    """
    can = solver.capabilities
    request: dict[str, Any] = {}
    if config.solver_time_limit is not None:
        request["time_limit"] = config.solver_time_limit
    if can.seed:
        request["seed"] = int(np.random.SeedSequence([config.seed, step]).generate_state(1)[0])
    if can.initial_state:
        request["initial_state"] = [block.start for block in blocks]
    problems = [block.problem for block in blocks]
    return solve_each(problems, solver, executor=executor, **request)
