"""Reduced-cost fixing with the convex relaxation, for solvers that search the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from problems import CardinalityQUBO
from problems.presolve import Presolved, restrict
from solvers.base import Request, State
from solvers.exact.convex import convexify
from solvers.exact.incumbent import round_relaxation, swap_search
from solvers.exact.root import solve_root


@dataclass(frozen=True)
class ReducedProblem:
    """A problem reduced by a bound; energies include the offset."""

    rest: Presolved
    """The remaining problem, and the fixed variables."""
    x: State
    """Best known state; it is feasible for the remaining problem."""
    bound: float
    """Lower bound of the relaxation on the whole problem."""
    cutoff: float
    """Every state with a lower energy is one of the remaining problem; above the energy of
    ``x``."""
    tolerance: float
    """Energies closer than this count as equal."""


def fix_by_reduced_costs(problem: CardinalityQUBO, request: Request) -> ReducedProblem:
    """Fix every variable whose other value excludes a state as good as that of a swap search.

    A better state allows more fixing. Unlike the dominance of :func:`problems.presolve.presolve`,
    it may exclude optima, but keeps one of them, up to ``tolerance``.
    """
    x = swap_search(problem, request, request.initial_state)
    convex = convexify(problem, request)
    root = solve_root(convex, problem.cardinalities, x, request)
    x = min(x, swap_search(problem, request, round_relaxation(problem, root)), key=problem.energy)
    energy = problem.energy(x) - problem.offset
    cutoff = energy + convex.tolerance
    # The state itself must remain feasible, in spite of rounding errors.
    decided = (root.bound + np.abs(root.reduced) >= cutoff) & ((root.reduced < 0) == (x == 1))
    fixed = np.where(decided, x, -1).astype(np.int8)
    return ReducedProblem(
        rest=Presolved(restrict(problem, fixed == 0, fixed == 1), fixed),
        x=x,
        bound=root.bound + problem.offset,
        cutoff=cutoff + problem.offset,
        tolerance=convex.tolerance,
    )
