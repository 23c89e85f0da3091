"""Entry points: solve one problem or a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, overload

from problems import BudgetQUBO, CardinalityQUBO, InvalidProblemError
from solvers.attempt import Answer, attempt, attempt_each
from solvers.base import Callback, Problem, Solver
from solvers.configure import check_attributes, reconfigured
from solvers.errors import OptionError, SolverError, wrap_errors
from solvers.guard import solver_name
from solvers.registry import create
from solvers.request import make_request
from solvers.solution import Solution
from solvers.streams import spawn_seeds


@overload
def solve(
    problem: Problem,
    solver: Any = ...,
    *,
    time_limit: float | None = ...,
    seed: int | None = ...,
    initial_state: Any = ...,
    num_reads: int = ...,
    callback: Callback | None = ...,
    executor: Executor | None = ...,
    **options: Any,
) -> Solution: ...


@overload
def solve(
    problem: Sequence[Problem],
    solver: Any = ...,
    *,
    time_limit: float | None = ...,
    seed: int | None = ...,
    initial_state: Any = ...,
    num_reads: int = ...,
    callback: Callback | None = ...,
    executor: Executor | None = ...,
    **options: Any,
) -> list[Solution]: ...


def solve(
    problem: Problem | Sequence[Problem],
    solver: Any = "anneal",
    *,
    time_limit: float | None = None,
    seed: int | None = None,
    initial_state: Any = None,
    num_reads: int = 1,
    callback: Callback | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> Solution | list[Solution]:
    """Minimise a QUBO with a cardinality or a budget, or several.

    Parameters
    ----------
    problem : CardinalityQUBO or BudgetQUBO, or a sequence of them
        A sequence is solved in the solver's own batch if it has one, else through ``executor``;
        the answer is then a list in the same order.
    solver : str, Solver or dimod.Sampler, default "anneal"
        A registered name (see :func:`solvers.available`), or an instance.
    time_limit : float, optional
        Wall seconds for each problem; solvers stop at their own criterion without one.
    seed : int, optional
        Seed of all randomness; each problem of a sequence gets a seed derived from it.
    initial_state : array_like of 0/1, shape (n,), optional
        A feasible start (a sequence of them for several problems). The answer is never
        worse than it.
    num_reads : int, default 1
        Independent starts.
    callback : callable, optional
        ``callback(seconds, energy)`` at each new incumbent; a true return value stops.
    executor : concurrent.futures.Executor, optional
        Used to solve a sequence; threads, or the solver's own batch, when omitted.
    **options
        The solver's own options.

    Returns
    -------
    Solution, or list of Solution

    Raises
    ------
    UnknownSolverError, MissingBackendError, OptionError, UnsupportedError
        Before any work is done.
    InvalidProblemError
        If an initial state has the wrong shape or is infeasible, or energies may overflow float64.
    BackendError
        If the backend failed, or its answer is invalid.
    TimeLimitError
        If a third-party solver was still running a grace time after its time limit; see
        :mod:`solvers.guard`.
    """
    chosen = resolve(solver, options)
    if isinstance(problem, CardinalityQUBO | BudgetQUBO):
        request = make_request(
            chosen, problem, time_limit, seed, initial_state, num_reads, callback
        )
        return _raised(attempt(chosen, problem, request))

    each = solve_each(
        problem,
        chosen,
        time_limit=time_limit,
        seed=seed,
        initial_state=initial_state,
        num_reads=num_reads,
        callback=callback,
        executor=executor,
    )
    return [_raised(answer) for answer in each]


def solve_each(
    problems: Sequence[Problem],
    solver: Any = "anneal",
    *,
    time_limit: float | None = None,
    seed: int | None = None,
    initial_state: Any = None,
    num_reads: int = 1,
    callback: Callback | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> list[Solution | SolverError]:
    """Solve a sequence like :func:`solve`, and return errors instead of raising them.

    A failure then affects only the problem that it occurred on.

    Parameters
    ----------
    problems : sequence of CardinalityQUBO or BudgetQUBO
    solver, time_limit, seed, initial_state, num_reads, callback, executor, **options
        As for :func:`solve`.

    Returns
    -------
    list of Solution or SolverError

    Raises
    ------
    UnknownSolverError, MissingBackendError, OptionError, UnsupportedError, InvalidProblemError
        Before any work is done.
    """
    chosen = resolve(solver, options)
    if not (executor is None or callable(getattr(executor, "submit", None))):
        raise OptionError(
            f"executor is a {type(executor).__name__}; pass a concurrent.futures.Executor"
        )
    given = _sequence(problems, "problem", "a CardinalityQUBO or BudgetQUBO, or a sequence of them")
    states = [None] * len(given)
    if initial_state is not None:
        states = _sequence(initial_state, "initial_state", "one for each problem")
    if len(states) != len(given):
        raise InvalidProblemError(
            f"{len(states)} initial states for {len(given)} problems; pass one for each"
        )
    requests = [
        make_request(chosen, p, time_limit, s, x, num_reads, callback)
        for p, s, x in zip(given, spawn_seeds(seed, len(given)), states, strict=True)
    ]
    return attempt_each(chosen, given, requests, executor)


def _raised(answer: Answer) -> Solution:
    """Return a solution; raise an error."""
    if isinstance(answer, SolverError):
        raise answer
    return answer


def _sequence(values: Any, name: str, wanted: str) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        kind = type(values).__name__
        raise InvalidProblemError(f"{name} is a {kind}; pass {wanted}") from None


def resolve(solver: Any, options: dict[str, Any]) -> Solver:
    """Return the solver for a name or object, with options set and its backend loaded.

    Raises
    ------
    UnknownSolverError, MissingBackendError, OptionError
        If there is no such solver, backend or option.
    BackendError
        If the solver's own code fails.
    """
    if isinstance(solver, str):
        return create(solver, **options)
    name = solver_name(solver)
    if not isinstance(solver, Solver):
        from solvers.adapters import as_solver

        with wrap_errors(name, "can't be wrapped"):
            solver = as_solver(solver)
    with wrap_errors(name, "could not be loaded"):
        check_attributes(repr(name), solver)
        solver.require()
        solver.options()
    return reconfigured(name, solver, options)
