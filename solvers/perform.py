"""One call of a solver, in whatever thread or process it is wanted, and the check of its answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from problems import CardinalityQUBO
from problems.sealed import read_only, sealed
from solvers.accept import accept
from solvers.base import Outcome, Request, Solver
from solvers.errors import BackendError, SolverError, blame
from solvers.scaling import run, run_batch


class Performance(NamedTuple):
    """What a call of a solver came to."""

    outcomes: list[Outcome | SolverError]
    """One for each problem."""
    seconds: float
    """Wall time of the call."""


def name_of(solver: Any) -> str:
    """Return a solver's name, also where it can't tell it."""
    try:
        return str(solver.name)
    except Exception:
        return type(solver).__name__


def perform(
    solver: Solver,
    problems: Sequence[CardinalityQUBO],
    requests: Sequence[Request],
    batch: bool,
    trusted: bool = False,
) -> Performance:
    """Call a solver on one problem, or on a batch of them, and check what comes back.

    One that is not trusted gets copies that it can't write to, and its clocks start now.

    Raises
    ------
    SolverError
        If a batch was not answered problem by problem.
    Exception
        Whatever the solver raised.
    """
    name, given, asked = name_of(solver), problems, requests
    if not trusted:
        given, asked = [sealed(p) for p in problems], [_own(r) for r in requests]
    begin = time.perf_counter()
    if batch:
        found = list(islice(run_batch(solver, given, asked), len(problems) + 1))
        if len(found) != len(problems):
            many = "more" if len(found) > len(problems) else f"{len(found)}"
            raise BackendError(f"solver {name!r} gave {many} answers to {len(problems)} problems")
    else:
        found = [run(solver, given[0], asked[0])]
    seconds = time.perf_counter() - begin
    outcomes: list[Outcome | SolverError] = []
    for problem, raw in zip(problems, found, strict=True):
        try:
            outcomes.append(accept(name, problem, raw))
        except Exception as error:  # its attributes may be properties, which raise anything
            outcomes.append(blame(name, error))
    return Performance(outcomes, seconds)


def _own(request: Request) -> Request:
    start = request.initial_state
    return dataclasses.replace(
        request,
        initial_state=None if start is None else read_only(start.copy()),
        started=time.perf_counter(),
    )
