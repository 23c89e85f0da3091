"""A single call of a solver, with scaling of the problem and validation of the answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from problems import BudgetQUBO
from problems.read_only import read_only, read_only_problem
from problems.scaling import Scaled
from solvers.base import Outcome, Problem, Request, Solver
from solvers.errors import BackendError, SolverError, to_solver_error
from solvers.scaling import restored_outcome, scaled_request
from solvers.validation import validate_outcome


class CallResult(NamedTuple):
    """Outcomes and duration of a call of a solver."""

    outcomes: list[Outcome | SolverError]
    """One for each problem."""
    seconds: float
    """Wall time of the call."""


def solver_name(solver: Any) -> str:
    """Return a solver's name, or its class name if it has none."""
    try:
        return str(solver.name)
    except Exception:
        return type(solver).__name__


def invoke(
    solver: Solver,
    problems: Sequence[Problem],
    requests: Sequence[Request],
    batch: bool,
    trusted: bool = False,
) -> CallResult:
    """Call a solver on one problem, or on a batch, and validate its answer.

    An untrusted solver gets read-only copies, and its time limits count from now. Problems with
    coefficients far from 1 are scaled first (:mod:`problems.scaling`).

    Raises
    ------
    SolverError
        If a batch has another number of answers than problems.
    Exception
        Any error of the solver.
    """
    name = solver_name(solver)
    begin = time.perf_counter()
    scaled = [Scaled.of(problem) for problem in problems]
    given = [s.problem if trusted else read_only_problem(s.problem) for s in scaled]
    own = requests if trusted else [_own(request) for request in requests]
    requests = [scaled_request(r, s) for r, s in zip(own, scaled, strict=True)]
    if batch:  # options of batches are not scaled
        found = list(islice(solver.run_batch(given, requests), len(problems) + 1))
        if len(found) != len(problems):
            many = "more" if len(found) > len(problems) else f"{len(found)}"
            raise BackendError(f"solver {name!r} gave {many} answers to {len(problems)} problems")
    else:
        fitting = solver.scaled(scaled[0].exponent) if scaled[0].exponent else solver
        found = [_run(fitting, given[0], requests[0])]
    seconds = time.perf_counter() - begin
    outcomes: list[Outcome | SolverError] = []
    for problem, view, raw in zip(problems, scaled, found, strict=True):
        try:
            outcomes.append(
                restored_outcome(validate_outcome(name, view.problem, raw), problem, view)
            )
        except Exception as error:  # its attributes may be properties that raise any error
            outcomes.append(to_solver_error(name, error))
    return CallResult(outcomes, seconds)


def _run(solver: Solver, problem: Problem, request: Request) -> Outcome:
    if isinstance(problem, BudgetQUBO):
        return solver.run_budget(problem, request)
    return solver.run(problem, request)


def _own(request: Request) -> Request:
    start = request.initial_state
    return dataclasses.replace(
        request,
        initial_state=None if start is None else read_only(start.copy()),
        started=time.perf_counter(),
    )
