"""Running solvers on problems: forced answers, batches, executors; errors are returned."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor

import numpy as np

from problems import BudgetQUBO
from solvers.background import DaemonThreads, error_of
from solvers.base import Interrupt, Outcome, Problem, Request, Solver, State
from solvers.cpus import usable_cpus
from solvers.errors import BackendError, SolverError, describe, to_solver_error
from solvers.finalize import finalize
from solvers.guard import call, is_trusted, solver_name
from solvers.interrupt import propagate_interrupt
from solvers.solution import Solution, Stop

Answer = Solution | SolverError

log = logging.getLogger("icbs")


def attempt(solver: Solver, problem: Problem, request: Request, apart: bool = False) -> Answer:
    """Solve one problem; return an error instead of raising it.

    Parameters
    ----------
    solver : Solver
    problem : Problem
    request : Request
    apart : bool, default False
        Whether to run the solver in another process; see :func:`solvers.guard.call`.
    """
    try:
        if (forced := _forced(solver, problem, request)) is not None:
            return forced
        (outcome,), seconds = call(solver, [problem], [request], apart=apart)
        return _finalized(solver, problem, request, outcome, seconds)
    except Exception as error:
        return to_solver_error(solver_name(solver), error)


def attempt_batch(
    solver: Solver, problems: Sequence[Problem], requests: Sequence[Request]
) -> list[Answer]:
    """Solve a sequence in the solver's own batch; one by one if the batch fails as a whole."""
    answers: dict[int, Answer] = {}
    open_ = []
    for i, (problem, request) in enumerate(zip(problems, requests, strict=True)):
        if (forced := _forced(solver, problem, request)) is not None:
            answers[i] = forced
        else:
            open_.append(i)
    if open_:
        chosen, asked = [problems[i] for i in open_], [requests[i] for i in open_]
        try:
            outcomes, seconds = call(solver, chosen, asked, batch=True)
        except Exception as error:
            failure = to_solver_error(solver_name(solver), error)
            if len(open_) == 1:
                return [answers.get(i, failure) for i in range(len(problems))]
            log.warning("a batch failed; its problems are solved one by one: %s", failure)
            answers |= {i: attempt_now(solver, problems[i], requests[i]) for i in open_}
        else:
            share = seconds / len(open_)
            for i, outcome in zip(open_, outcomes, strict=True):
                answers[i] = _finalized(solver, problems[i], requests[i], outcome, share)
    return [answers[i] for i in range(len(problems))]


def attempt_each(
    solver: Solver,
    problems: Sequence[Problem],
    requests: Sequence[Request],
    executor: Executor | None = None,
) -> list[Answer]:
    """Solve a sequence in parallel, in the solver's own batch if it has one.

    Parameters
    ----------
    solver : Solver
    problems : sequence of Problem
    requests : sequence of Request
    executor : concurrent.futures.Executor, optional
        Used instead of the solver's own batch; threads when omitted.
    """
    interrupt = Interrupt()
    requests = [dataclasses.replace(request, interrupt=interrupt) for request in requests]
    budgets = any(isinstance(problem, BudgetQUBO) for problem in problems)
    if solver.capabilities.batches and executor is None and not budgets:
        return attempt_batch(solver, problems, requests)
    if executor is not None:
        with propagate_interrupt(interrupt):
            return _through(executor, solver, problems, requests)
    # An interruption waits for our own solvers, which stop soon, but not for others.
    threads = ThreadPoolExecutor if is_trusted(solver) else DaemonThreads
    with threads(min(32, usable_cpus() + 4)) as pool, propagate_interrupt(interrupt):
        return _through(pool, solver, problems, requests)


def attempt_now(solver: Solver, problem: Problem, request: Request) -> Answer:
    """Solve one problem of a sequence, counting its time limit from now."""
    return attempt(solver, problem, dataclasses.replace(request, started=time.perf_counter()))


def _through(
    executor: Executor,
    solver: Solver,
    problems: Sequence[Problem],
    requests: Sequence[Request],
) -> list[Answer]:
    """Solve a sequence in an executor; isolate problems whose process died.

    A process pool breaks as a whole when one process dies. The culprit is unknown, so that each
    unanswered problem then gets a process of its own.
    """
    tasks = list(zip(problems, requests, strict=True))
    futures = [_submit(executor, solver, *task) for task in tasks]
    try:
        answers = [_collect(solver, future) for future in futures]
    finally:
        for future in futures:
            future.cancel()
    if lost := [i for i, answer in enumerate(answers) if answer is None]:
        log.warning(
            "a process of the executor died: each unsolved problem is retried in a process of "
            "its own"
        )
        with DaemonThreads(usable_cpus()) as pool:
            again = {i: pool.submit(attempt, solver, *tasks[i], apart=True) for i in lost}
            for i, future in again.items():
                answers[i] = _collect(solver, future)
    return [answer for answer in answers if answer is not None]


def _submit(
    executor: Executor, solver: Solver, problem: Problem, request: Request
) -> Future[Answer]:
    try:
        return executor.submit(attempt_now, solver, problem, request)
    except Exception as error:
        refused: Future[Answer] = Future()
        refused.set_exception(error)
        return refused


def _collect(solver: Solver, future: Future[Answer]) -> Answer | None:
    """Return a task's answer; None if its executor broke."""
    try:
        error = error_of(future)
    except CancelledError as cancelled:
        error = cancelled
    if error is None:
        return future.result()
    if isinstance(error, BrokenExecutor):
        return None
    if not isinstance(error, Exception):  # an interruption, here or in a worker
        raise error
    return BackendError(
        f"the executor could not run solver {solver_name(solver)!r}: {describe(error)}; solvers "
        "for processes must be importable there and picklable, others run in threads"
    )


def _finalized(
    solver: Solver,
    problem: Problem,
    request: Request,
    outcome: Outcome | SolverError,
    seconds: float,
) -> Answer:
    if isinstance(outcome, SolverError):
        return outcome
    try:
        return finalize(solver, problem, request, outcome, seconds)
    except Exception as error:  # from the solver's own attributes, such as its options
        return to_solver_error(solver_name(solver), error)


def _forced(solver: Solver, problem: Problem, request: Request) -> Solution | None:
    """Answer without a search if only one state is feasible."""
    if (only := _only_state(problem)) is None:
        return None
    bound = problem.energy(only) if solver.capabilities.exact else None
    outcome = Outcome(only[None], Stop.PROVEN, proven=solver.capabilities.exact, bound=bound)
    return finalize(solver, problem, request, outcome, 0.0)


def _only_state(problem: Problem) -> State | None:
    """Return the feasible state if it is the only one, else None."""
    zeros, ones = problem.forced_variables()
    return ones.astype(np.uint8) if (zeros | ones).all() else None
