"""The single entry point: check, run, recompute, and never lose the incumbent."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO, InvalidProblemError
from solvers.base import Callback, Outcome, Request, Solver, State
from solvers.errors import BackendError, OptionError, SolverError, UnsupportedError
from solvers.registry import create
from solvers.solution import Solution, Status, Stop, Timing


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
        If an initial state has the wrong shape or misses the cardinality.
    BackendError
        If the backend failed.
    """
    chosen = _resolve(solver, options)
    if isinstance(problem, CardinalityQUBO):
        request = _request(chosen, problem, time_limit, seed, initial_state, num_reads, callback)
        return _solve_one(chosen, problem, request)

    problems = list(problem)
    states = [None] * len(problems) if initial_state is None else list(initial_state)
    if len(states) != len(problems):
        raise InvalidProblemError(
            f"{len(states)} initial states for {len(problems)} problems; pass one for each"
        )
    seeds = spawn_seeds(seed, len(problems))
    requests = [
        _request(chosen, p, time_limit, s, x, num_reads, callback)
        for p, s, x in zip(problems, seeds, states, strict=True)
    ]
    if chosen.capabilities.batches and executor is None:
        return _solve_batch(chosen, problems, requests)
    if executor is not None:
        return list(executor.map(_solve_task, [chosen] * len(problems), problems, requests))
    with ThreadPoolExecutor() as threads:
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
        from solvers.dimod_ import as_solver

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


def _request(
    solver: Solver,
    problem: CardinalityQUBO,
    time_limit: float | None,
    seed: int | None,
    initial_state: Any,
    num_reads: int,
    callback: Callback | None,
) -> Request:
    """Check what is asked against the solver's capabilities."""
    can, name = solver.capabilities, solver.name
    asked = {
        "time_limit": time_limit is not None,
        "seed": seed is not None,
        "initial_state": initial_state is not None,
        "num_reads": num_reads != 1,
        "callback": callback is not None,
    }
    for what, wanted in asked.items():
        if wanted and not getattr(can, what):
            raise UnsupportedError(f"solver {name!r} can't honour {what}; leave it out")
    if time_limit is not None and not (np.isfinite(time_limit) and time_limit > 0):
        raise OptionError(f"time_limit is {time_limit}; it must be a positive number of seconds")
    if not (isinstance(num_reads, int | np.integer) and num_reads >= 1):
        raise OptionError(f"num_reads is {num_reads!r}; it must be an integer of 1 or more")
    if seed is not None and not (isinstance(seed, int | np.integer) and seed >= 0):
        raise OptionError(f"seed is {seed!r}; it must be a non-negative integer")
    if can.max_n is not None and problem.n > can.max_n:
        raise UnsupportedError(
            f"solver {name!r} takes at most n = {can.max_n} variables, the problem has "
            f"{problem.n}; choose smaller blocks or another solver"
        )
    if problem.num_groups > 1 and not can.groups:
        raise UnsupportedError(
            f"solver {name!r} holds one cardinality, the problem has {problem.num_groups} groups"
        )
    state = None if initial_state is None else _checked_state(problem, initial_state)
    return Request(
        time_limit=None if time_limit is None else float(time_limit),
        seed=None if seed is None else int(seed),
        initial_state=state,
        num_reads=int(num_reads),
        callback=callback,
    )


def _checked_state(problem: CardinalityQUBO, initial_state: Any) -> State:
    state = problem.as_states(initial_state)
    if state.ndim != 1:
        raise InvalidProblemError(f"initial_state has shape {state.shape}; pass ({problem.n},)")
    if not problem.is_feasible(state):
        raise InvalidProblemError(
            f"initial_state has {int(state.sum())} ones and misses the cardinality "
            f"k = {problem.cardinalities.tolist()[:8]}; start from a feasible state"
        )
    return state


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
        outcome = solver.run(problem, request)
    return _conclude(solver, problem, request, outcome, time.perf_counter() - begin)


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
            outcomes = solver.run_batch([problems[i] for i in open_], [requests[i] for i in open_])
        share = (time.perf_counter() - begin) / len(open_)
        for i, outcome in zip(open_, outcomes, strict=True):
            answers[i] = _conclude(solver, problems[i], requests[i], outcome, share)
    return [answer for answer in answers if answer is not None]


def _forced(solver: Solver, problem: CardinalityQUBO, request: Request) -> Solution | None:
    """Answer without a search where one state alone is feasible."""
    if (only := _only_state(problem)) is None:
        return None
    bound = problem.energy(only) if solver.capabilities.exact else None
    outcome = Outcome(only[None], Stop.PROVEN, proven=solver.capabilities.exact, bound=bound)
    return _conclude(solver, problem, request, outcome, 0.0)


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


def _conclude(
    solver: Solver, problem: CardinalityQUBO, request: Request, outcome: Outcome, seconds: float
) -> Solution:
    """Recompute energies, put feasible samples first, and keep the best state known."""
    begin = time.perf_counter()
    try:
        samples = np.atleast_2d(problem.as_states(outcome.samples))
    except InvalidProblemError as error:
        raise BackendError(f"solver {solver.name!r} returned no states: {error}") from error
    if request.initial_state is not None and not len(samples):
        samples = request.initial_state[None]
    energies, feasible = _measure(problem, samples)
    repaired = np.zeros(len(samples), dtype=bool)
    if outcome.repaired is not None:
        repaired[: len(outcome.repaired)] = outcome.repaired
    if request.initial_state is not None:
        start = problem.energy(request.initial_state)
        if not (feasible & (energies <= start)).any():
            samples = np.concatenate([samples, request.initial_state[None]])
            energies, feasible = np.append(energies, start), np.append(feasible, True)
            repaired = np.append(repaired, False)
    order = np.lexsort((energies, ~feasible))
    samples, energies, feasible = samples[order], energies[order], feasible[order]
    repaired = repaired[order]
    found = bool(len(samples)) and bool(feasible[0])
    proven = found and outcome.proven and solver.capabilities.exact
    status = Status.OPTIMAL if proven else Status.FEASIBLE if found else Status.NO_SOLUTION_FOUND
    spent = max(0.0, seconds - outcome.build_seconds - outcome.decode_seconds)
    decode = outcome.decode_seconds + time.perf_counter() - begin
    return Solution(
        x=samples[0] if found else None,
        energy=float(energies[0]) if found else float("inf"),
        status=status,
        stop=outcome.stop,
        bound=outcome.bound,
        samples=samples,
        energies=energies,
        feasible=feasible,
        repaired=repaired,
        timing=Timing(outcome.build_seconds, spent, decode),
        info=_record(solver, problem, request) | outcome.info,
    )


def _record(solver: Solver, problem: CardinalityQUBO, request: Request) -> dict[str, Any]:
    """Say what was asked of whom, so that an answer can be traced and repeated."""
    options = {name: getattr(solver, name) for name in solver.options()}
    return {
        "solver": solver.name,
        "versions": solver.versions(),
        "options": {k: v if _is_plain(v) else type(v).__name__ for k, v in options.items()},
        "problem": problem.hash,
        "seed": request.seed,
        "time_limit": request.time_limit,
        "num_reads": request.num_reads,
        "warm_start": request.initial_state is not None,
    }


def _is_plain(value: Any) -> bool:
    """Whether an option can be written down; backends and samplers can't."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _measure(
    problem: CardinalityQUBO, samples: State
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    if not len(samples):
        return np.zeros(0), np.zeros(0, dtype=bool)
    return problem.energy(samples), np.asarray(problem.is_feasible(samples))
