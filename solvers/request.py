"""Validation of requests against a solver's capabilities."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from problems import BudgetQUBO, CardinalityQUBO, InvalidProblemError
from problems.read_only import read_only
from problems.scaling import check_energies
from solvers.base import Callback, Problem, Request, Solver, State
from solvers.errors import CallbackError, OptionError, UnsupportedError, describe


def make_request(
    solver: Solver,
    problem: Problem,
    time_limit: float | None,
    seed: int | None,
    initial_state: Any,
    num_reads: int,
    callback: Callback | None,
) -> Request:
    """Build a request after checking it against the solver's capabilities.

    Raises
    ------
    UnsupportedError
        If the solver does not support the request or the problem.
    OptionError
        If a value is out of range.
    InvalidProblemError
        If the initial state has the wrong shape or is infeasible, energies may overflow float64,
        or ``problem`` has another type.
    """
    if not isinstance(problem, CardinalityQUBO | BudgetQUBO):
        raise InvalidProblemError(
            f"a problem is a {type(problem).__name__}; pass a problems.CardinalityQUBO or "
            "BudgetQUBO"
        )
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
            raise UnsupportedError(f"solver {name!r} does not support {what}; omit it")
    seconds = None if time_limit is None else checked_seconds(time_limit)
    reads, seed = checked_reads(num_reads), checked_seed(seed)
    if not (callback is None or callable(callback)):
        raise OptionError(f"callback is {_shown(callback)}; pass a callable, or omit it")
    if can.max_n is not None and problem.n > can.max_n:
        raise UnsupportedError(
            f"solver {name!r} takes at most n = {can.max_n} variables, the problem has "
            f"{problem.n}; choose smaller blocks or another solver"
        )
    if isinstance(problem, BudgetQUBO):
        _check_budget(solver)
    elif problem.num_groups > 1 and not can.groups:
        raise UnsupportedError(
            f"solver {name!r} supports one cardinality, the problem has {problem.num_groups} groups"
        )
    check_energies(problem)
    state = None if initial_state is None else _checked_state(problem, initial_state)
    return Request(
        time_limit=seconds,
        seed=seed,
        initial_state=state,
        num_reads=reads,
        callback=None if callback is None else _SafeCallback(callback),
    )


@dataclass(frozen=True)
class _SafeCallback:
    """A callback whose errors are not those of the solver that calls it."""

    callback: Callback

    def __call__(self, seconds: float, energy: float) -> bool | None:
        try:
            return bool(self.callback(seconds, energy))
        except Exception as error:
            raise CallbackError(f"the callback failed: {describe(error)}") from error


def _check_budget(solver: Solver) -> None:
    """Refuse a problem with a budget unless the solver holds budgets."""
    if solver.capabilities.budgets:
        return
    from solvers.registry import available, get

    able = ", ".join(name for name in available() if get(name).capabilities.budgets)
    raise UnsupportedError(
        f"solver {solver.name!r} can't hold a budget; choose one that can: {able}"
    )


def checked_seed(seed: Any) -> int | None:
    """Return a seed as an ``int``; None stays None.

    Raises
    ------
    OptionError
        If it is not a non-negative integer.
    """
    if seed is None:
        return None
    if not _is_integer(seed) or seed < 0:
        raise OptionError(f"seed is {_shown(seed)}; it must be a non-negative integer, such as 0")
    return int(seed)


def checked_reads(num_reads: Any) -> int:
    """Return a number of reads as an ``int``.

    Raises
    ------
    OptionError
        If it is not an integer of 1 or more.
    """
    if not _is_integer(num_reads) or num_reads < 1:
        shown = _shown(num_reads)
        raise OptionError(f"num_reads is {shown}; it must be an integer of 1 or more, such as 1")
    return int(num_reads)


def checked_seconds(time_limit: Any) -> float:
    """Return a time limit as a ``float``.

    Raises
    ------
    OptionError
        If it is not a positive, finite number.
    """
    number = isinstance(time_limit, Real) and not isinstance(time_limit, bool)
    if not number or not 0 < time_limit < math.inf:
        raise OptionError(
            f"time_limit is {_shown(time_limit)}; it must be a positive number of seconds, "
            "such as 1.5"
        )
    try:
        return float(time_limit)
    except OverflowError:
        raise OptionError(f"time_limit is {_shown(time_limit)}; omit it for no limit") from None


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Show a value, abbreviated if it is long."""
    return reprlib.repr(value)


def _checked_state(problem: Problem, initial_state: Any) -> State:
    state = read_only(problem.as_states(initial_state))
    if state.ndim != 1:
        raise InvalidProblemError(f"initial_state has shape {state.shape}; pass ({problem.n},)")
    if isinstance(problem, BudgetQUBO):
        if wrong := problem.infeasibility(state):
            raise InvalidProblemError(f"initial_state {wrong}; start from a feasible state")
    elif not problem.is_feasible(state):
        raise InvalidProblemError(
            f"initial_state has {int(state.sum())} ones and violates the cardinality "
            f"k = {problem.cardinalities.tolist()[:8]}; start from a feasible state"
        )
    return state
