"""Choose and check a solver; solve the blocks of a pass in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from icbs import parallel, streams
from icbs.blocks.block import Block
from icbs.config import PrunerConfig
from icbs.groups.density import free_sizes
from solvers import Solution, Solver, SolverError, UnsupportedError, get, names, solve_each
from solvers.errors import wrap_errors
from solvers.solve import resolve
from solvers.validation import is_plain

if TYPE_CHECKING:
    from icbs.run.context import RunContext


def choose_solver(solver: Any, options: dict[str, Any]) -> tuple[Solver, str, dict[str, Any]]:
    """Create a solver from a name, or adapt an instance.

    Parameters
    ----------
    solver : str, Solver, dimod.Sampler or OptimizationAlgorithm
        A registered name, ``module:Class``, or an instance.
    options : dict
        Options of the solver.

    Returns
    -------
    solver : Solver
    name : str
        Name recorded in a run folder: the registered one, else ``module:Class``.
    options : dict
        Options recorded with it.

    Raises
    ------
    SolverError
        See :func:`solvers.create`.
    """
    chosen = resolve(solver, options)
    if isinstance(solver, str):
        return chosen, solver, options
    defaults = chosen.options()
    held = {key: getattr(chosen, key) for key in defaults}
    given = {k: v for k, v in held.items() if not is_plain(v) or v != defaults[k]}
    plain = all(map(is_plain, given.values()))
    if plain and chosen.name in names() and get(chosen.name) is type(chosen):
        return chosen, chosen.name, given
    kind = type(solver)
    recorded = given if plain and chosen is solver else options
    return chosen, f"{kind.__module__}:{kind.__qualname__}", recorded


def check_solver(solver: Solver, config: PrunerConfig) -> None:
    """Refuse a solver that does not support the blocks of the run.

    Raises
    ------
    UnsupportedError
        Naming the setting to change.
    BackendError
        If it needs something that is not set up; see :meth:`solvers.Solver.check_ready`.
    """
    can = solver.capabilities
    size = config.block_size
    if can.max_n is not None and size != "all" and size > can.max_n:
        raise UnsupportedError(
            f"block_size is {size}, but solver {solver.name!r} takes at most "
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
    if config.candidates > 1 and not can.num_reads:
        raise UnsupportedError(
            f"candidates is {config.candidates}, and solver {solver.name!r} returns one state; "
            "leave candidates out, or choose anneal"
        )
    if parallel.rank() == 0:  # the only process that solves
        with wrap_errors(solver.name, "is not ready"):
            solver.check_ready()


def check_whole_model(solver: Solver, config: PrunerConfig, context: RunContext) -> None:
    """Refuse a solver that does not support a block of all gates, if ``block_size="all"``.

    Raises
    ------
    UnsupportedError
        Naming the setting to change.
    """
    layers, grouping = context.layers, context.grouping
    if grouping is None:
        if config.block_size != "all":
            return
        size, what = sum(layer.size for layer in layers), "weights"
        several = config.constraint != "layer" or (
            len(layers) > 1 and config.allocation != "global"
        )
    else:
        size, what = grouping.count, "groups"
        several = len(grouping.pools) > 1
        if grouping.budget is not None and not solver.capabilities.budgets:
            able = ", ".join(name for name in names() if get(name).capabilities.budgets)
            raise UnsupportedError(
                f"solver {solver.name!r} can't hold a budget; choose one that can ({able}), or "
                "set density instead"
            )
    can = solver.capabilities
    if config.block_size == "all" and can.max_n is not None and size > can.max_n:
        raise UnsupportedError(
            f"block_size='all' makes one problem of {size:,} {what}, and solver "
            f"{solver.name!r} takes at most {can.max_n}; set block_size={can.max_n} or less, or "
            "choose another solver"
        )
    if grouping is not None and (config.block_size == "all" or config.block_size >= size):
        budget = grouping.budget is not None
        solver.check_size(None if budget else free_sizes(grouping, config), size)
    if several and not can.groups:
        raise UnsupportedError(
            f"one block keeps one count for each layer or dimension, and solver {solver.name!r} "
            "holds one in all; use allocation='global' and constraint='layer'"
        )


def solve_blocks(
    blocks: Sequence[Block],
    solver: Solver,
    config: PrunerConfig,
    step: int,
    executor: Executor | None = None,
) -> list[Solution | SolverError]:
    """Solve the blocks of a pass; the answer to a block that fails is its error.

    Parameters
    ----------
    blocks : sequence of Block
    solver : Solver
    config : PrunerConfig
    step : int
        The pass, from which the solver's seed is derived.
    executor : concurrent.futures.Executor, optional
        Executor that solves the blocks in parallel; see :func:`solvers.solve`.

    Returns
    -------
    list of Solution or SolverError
    """
    can = solver.capabilities
    request: dict[str, Any] = {}
    if config.solver_time_limit is not None:
        request["time_limit"] = config.solver_time_limit
    if can.seed:
        request["seed"] = streams.solver_seed(config.seed, step)
    if config.candidates > 1 and can.num_reads:
        request["num_reads"] = config.candidates
    if can.initial_state:
        request["initial_state"] = [block.start for block in blocks]
    problems = [block.problem for block in blocks]
    return solve_each(problems, solver, executor=executor, **request)
