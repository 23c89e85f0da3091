"""One call of a solver, in whatever thread or process it is wanted, and the check of its answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from problems import CardinalityQUBO
from problems.read_only import read_only, read_only_problem
from problems.scaling import Scaled
from solvers.base import Outcome, Request, Solver
from solvers.errors import BackendError, SolverError, to_solver_error
from solvers.scaling import restored_outcome, scaled_request
from solvers.validation import validate_outcome


class CallResult(NamedTuple):
    """What a call of a solver came to."""

    outcomes: list[Outcome | SolverError]
    """One for each problem."""
    seconds: float
    """Wall time of the call."""


def solver_name(solver: Any) -> str:
    """Return a solver's name, also where it can't tell it."""
    try:
        return str(solver.name)
    except Exception:
        return type(solver).__name__


def invoke(
    solver: Solver,
    problems: Sequence[CardinalityQUBO],
    requests: Sequence[Request],
    batch: bool,
    trusted: bool = False,
) -> CallResult:
    """Call a solver on one problem, or on a batch of them, and check what comes back.

    One that is not trusted gets copies that it can't write to, and its clocks start now. What
    has coefficients far from 1 is scaled first (:mod:`problems.scaling`).

    Raises
    ------
    SolverError
        If a batch was not answered problem by problem.
    Exception
        Whatever the solver raised.
    """
    name = solver_name(solver)
    begin = time.perf_counter()
    scaled = [Scaled.of(problem) for problem in problems]
    given = [s.problem if trusted else read_only_problem(s.problem) for s in scaled]
    own = requests if trusted else [_own(request) for request in requests]
    requests = [scaled_request(r, s) for r, s in zip(own, scaled, strict=True)]
    if batch:  # whose options are not scaled
        found = list(islice(solver.run_batch(given, requests), len(problems) + 1))
        if len(found) != len(problems):
            many = "more" if len(found) > len(problems) else f"{len(found)}"
            raise BackendError(f"solver {name!r} gave {many} answers to {len(problems)} problems")
    else:
        fitting = solver.scaled(scaled[0].exponent) if scaled[0].exponent else solver
        found = [fitting.run(given[0], requests[0])]
    seconds = time.perf_counter() - begin
    outcomes: list[Outcome | SolverError] = []
    for problem, view, raw in zip(problems, scaled, found, strict=True):
        try:
            outcomes.append(
                restored_outcome(validate_outcome(name, view.problem, raw), problem, view)
            )
        except Exception as error:  # its attributes may be properties, which raise anything
            outcomes.append(to_solver_error(name, error))
    return CallResult(outcomes, seconds)


def _own(request: Request) -> Request:
    start = request.initial_state
    return dataclasses.replace(
        request,
        initial_state=None if start is None else read_only(start.copy()),
        started=time.perf_counter(),
    )
