"""Conclusion of a search under a budget by another exact backend."""

from __future__ import annotations

from typing import Any

from solvers.base import Outcome
from solvers.exact.budget import BudgetRun
from solvers.solution import Stop


def settle(run: BudgetRun, build: float, tolerance: float, info: dict[str, Any]) -> Outcome:
    """Return incumbent and bound of a run, proved optimal if they meet.

    Parameters
    ----------
    run : BudgetRun
    build : float
        Seconds spent before the search.
    tolerance : float
        Share of the energy (offset left out) that a proof may leave open.
    info : dict
        Report of the backend.
    """
    allowed = max(tolerance * abs(run.energy), 2 * run.tolerance)
    if run.convex is not None and not run.convex.scale:
        run.bound = run.energy
    proven = run.energy - run.bound <= allowed
    stop = run.stop
    if proven:
        stop = Stop.PROVEN
    elif stop is Stop.PROVEN:
        stop = Stop.CONVERGED
    offset = run.problem.offset
    return Outcome(
        samples=run.x[None],
        stop=stop,
        proven=proven,
        bound=None if run.bound == -float("inf") else min(run.bound, run.energy) + offset,
        build_seconds=build,
        info=info | {"free": run.core_size, "tolerance": allowed},
    )
