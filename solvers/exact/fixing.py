"""Fix what the convex relaxation decides, for solvers that search the rest themselves."""

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
    """What is left, and the way back."""
    x: State
    """Best state known, which the rest still holds."""
    bound: float
    """Lower bound of the relaxation on the whole problem."""
    cutoff: float
    """Every state with less energy is one of the rest; it lies above that of ``x``."""
    tolerance: float
    """Energies closer than this count as equal."""


def fix_by_reduced_costs(problem: CardinalityQUBO, request: Request) -> ReducedProblem:
    """Fix every variable that no state as good as a swap search's has otherwise.

    The better the state, the more is fixed; unlike the dominance of
    :func:`problems.presolve.presolve` it leaves fewer than all optima, but one of them, up to
    ``tolerance``.
    """
    x = swap_search(problem, request, request.initial_state)
    convex = convexify(problem, request)
    root = solve_root(convex, problem.cardinalities, x, request)
    x = min(x, swap_search(problem, request, round_relaxation(problem, root)), key=problem.energy)
    energy = problem.energy(x) - problem.offset
    cutoff = energy + convex.tolerance
    # The state itself stays, whatever rounding says of it.
    decided = (root.bound + np.abs(root.reduced) >= cutoff) & ((root.reduced < 0) == (x == 1))
    fixed = np.where(decided, x, -1).astype(np.int8)
    return ReducedProblem(
        rest=Presolved(restrict(problem, fixed == 0, fixed == 1), fixed),
        x=x,
        bound=root.bound + problem.offset,
        cutoff=cutoff + problem.offset,
        tolerance=convex.tolerance,
    )
