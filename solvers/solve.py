"""The single entry point: check, run, recompute, and never lose the incumbent."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, overload

import numpy as np

from problems import CardinalityQUBO, InvalidProblemError
from solvers.base import Callback, Interrupt, Outcome, Request, Solver, State
from solvers.conclude import conclude
from solvers.errors import BackendError, OptionError, SolverError
from solvers.interrupt import announced
from solvers.registry import create
from solvers.request import make_request
from solvers.scaling import run, run_batch
from solvers.solution import Solution, Stop


@overload
def solve(
    problem: CardinalityQUBO,
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
    problem: Sequence[CardinalityQUBO],
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
    problem: CardinalityQUBO | Sequence[CardinalityQUBO],
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
    """Minimise a cardinality-constrained QUBO, or several.

    Parameters
    ----------
    problem : CardinalityQUBO or sequence of them
        A sequence is solved in the solver's own batch where it has one, else through
        ``executor``; the answer is then a list in the same order.
    solver : str, Solver or dimod.Sampler, default "anneal"
        A registered name (see :func:`solvers.available`), or an instance.
    time_limit : float, optional
        Wall seconds for each problem; solvers stop at their own criterion without one.
    seed : int, optional
        Seed of all randomness; problem ``i`` of a sequence gets its own stream of it.
    initial_state : array_like of 0/1, shape (n,), optional
        A feasible start (a sequence of them for several problems). The answer is never
        worse than it.
    num_reads : int, default 1
        Independent starts.
    callback : callable, optional
        ``callback(seconds, energy)`` at each new incumbent; a true return value stops.
    executor : concurrent.futures.Executor, optional
        Where the problems of a sequence run when the solver has no batch of its own;
        threads when omitted.
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
        If an initial state has the wrong shape or misses the cardinality, or energies of the
        problem leave float64.
    BackendError
        If the backend failed.
    """
    chosen = _resolve(solver, options)
    if isinstance(problem, CardinalityQUBO):
        request = make_request(
            chosen, problem, time_limit, seed, initial_state, num_reads, callback
        )
        return _solve_one(chosen, problem, request)

    problems = list(problem)
    states = [None] * len(problems) if initial_state is None else list(initial_state)
    if len(states) != len(problems):
        raise InvalidProblemError(
            f"{len(states)} initial states for {len(problems)} problems; pass one for each"
        )
    seeds = spawn_seeds(seed, len(problems))
    interrupt = Interrupt()
    requests = [
        dataclasses.replace(
            make_request(chosen, p, time_limit, s, x, num_reads, callback), interrupt=interrupt
        )
        for p, s, x in zip(problems, seeds, states, strict=True)
    ]
    if chosen.capabilities.batches and executor is None:
        return _solve_batch(chosen, problems, requests)
    if executor is not None:
        with announced(interrupt):
            return list(executor.map(_solve_task, [chosen] * len(problems), problems, requests))
    with ThreadPoolExecutor() as threads, announced(interrupt):
        return list(threads.map(_solve_task, [chosen] * len(problems), problems, requests))


def spawn_seeds(seed: int | None, count: int) -> list[int | None]:
    """Derive one independent seed a problem; None stays None."""
    if seed is None:
        return [None] * count
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(count, np.uint32)]


def _resolve(solver: Any, options: dict[str, Any]) -> Solver:
    if isinstance(solver, str):
        return create(solver, **options)
    if not isinstance(solver, Solver):
        from solvers.foreign import as_solver

        solver = as_solver(solver)
    solver.require()
    if options:
        try:
            return dataclasses.replace(solver, **options)
        except TypeError:
            raise OptionError(
                f"solver {solver.name!r} has no option among {sorted(options)}; "
                f"its options are: {', '.join(solver.options()) or 'none'}"
            ) from None
    return solver


def _only_state(problem: CardinalityQUBO) -> State | None:
    """Return the one feasible state where k leaves no choice in any group."""
    sizes = np.bincount(problem.groups, minlength=problem.num_groups)
    full = problem.cardinalities == sizes
    if (full | (problem.cardinalities == 0)).all():
        return full[problem.groups].astype(np.uint8)
    return None


def _solve_task(solver: Solver, problem: CardinalityQUBO, request: Request) -> Solution:
    """Solve one problem of a sequence: its clock starts when its turn comes."""
    return _solve_one(solver, problem, dataclasses.replace(request, started=time.perf_counter()))


def _solve_one(solver: Solver, problem: CardinalityQUBO, request: Request) -> Solution:
    if (forced := _forced(solver, problem, request)) is not None:
        return forced
    begin = time.perf_counter()
    with _vendor_errors(solver):
        outcome = run(solver, problem, request)
    return conclude(solver, problem, request, outcome, time.perf_counter() - begin)


def _solve_batch(
    solver: Solver, problems: list[CardinalityQUBO], requests: list[Request]
) -> list[Solution]:
    answers: list[Solution | None] = [
        _forced(solver, p, r) for p, r in zip(problems, requests, strict=True)
    ]
    open_ = [i for i, answer in enumerate(answers) if answer is None]
    if open_:
        begin = time.perf_counter()
        with _vendor_errors(solver):
            outcomes = run_batch(solver, [problems[i] for i in open_], [requests[i] for i in open_])
        share = (time.perf_counter() - begin) / len(open_)
        for i, outcome in zip(open_, outcomes, strict=True):
            answers[i] = conclude(solver, problems[i], requests[i], outcome, share)
    return [answer for answer in answers if answer is not None]


def _forced(solver: Solver, problem: CardinalityQUBO, request: Request) -> Solution | None:
    """Answer without a search where one state alone is feasible."""
    if (only := _only_state(problem)) is None:
        return None
    bound = problem.energy(only) if solver.capabilities.exact else None
    outcome = Outcome(only[None], Stop.PROVEN, proven=solver.capabilities.exact, bound=bound)
    return conclude(solver, problem, request, outcome, 0.0)


@contextmanager
def _vendor_errors(solver: Solver) -> Iterator[None]:
    """Wrap whatever a backend raises in :class:`BackendError`."""
    try:
        yield
    except SolverError:
        raise
    except Exception as error:
        raise BackendError(
            f"solver {solver.name!r} failed: {type(error).__name__}: {error}"
        ) from error
