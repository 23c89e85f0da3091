"""What is asked of a solver, checked against what it can honour."""

from __future__ import annotations

from typing import Any

import numpy as np

from problems import CardinalityQUBO, InvalidProblemError
from problems.scaling import check_energies
from solvers.base import Callback, Request, Solver, State
from solvers.errors import OptionError, UnsupportedError


def make_request(
    solver: Solver,
    problem: CardinalityQUBO,
    time_limit: float | None,
    seed: int | None,
    initial_state: Any,
    num_reads: int,
    callback: Callback | None,
) -> Request:
    """Check what is asked against the solver's capabilities, before any work is done.

    Raises
    ------
    UnsupportedError
        If the solver can't honour it, or can't hold the problem.
    OptionError
        If a value is out of range.
    InvalidProblemError
        If the initial state has the wrong shape or misses the cardinality, or energies of the
        problem leave float64.
    """
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
    check_energies(problem)
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
