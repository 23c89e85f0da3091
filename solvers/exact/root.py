"""Root relaxation by sifting, and extraction of the undecided core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.base import Request
from solvers.exact.convex import Array, Convex, Vector
from solvers.exact.relaxation import ConvexProblem, Iterate, relax

#: Initial size of the working set, and largest number of variables added per round.
_WORKING = 256
_ROUNDS = 50
#: Newton steps between two checks of the time limit.
_STEPS = 16


@dataclass(frozen=True)
class Root:
    """Minimum and bound of the root relaxation."""

    y: Vector
    """Point, shape (n,)."""
    bound: float
    """Lower bound on ``f`` over all feasible states, including rounding errors."""
    reduced: Vector
    """Reduced costs: forcing ``x_i`` to its other side raises the bound by |reduced_i|."""


@dataclass(frozen=True)
class Core:
    """The problem in the variables that are not fixed by a bound."""

    problem: ConvexProblem
    """In the remaining variables, with their groups relabelled 0, 1, …"""
    constant: float
    index: Array
    """Index of each of the core's variables in the problem."""
    x: npt.NDArray[np.uint8]
    """State of all variables, 0 in the core."""
    feasible: bool
    """Whether the fixed variables allow a feasible state."""

    def lift(self, state: Array) -> npt.NDArray[np.uint8]:
        """Return the state of all variables for a state of the core."""
        x = self.x.copy()
        x[self.index] = state
        return x


def solve_root(convex: Convex, k: Array, x: Array, request: Request) -> Root:
    """Relax the whole problem from a feasible state ``x``, as far as the time allows.

    Solves the relaxation on a working set, computes reduced costs of the other variables from the
    full gradient, and adds those on the wrong side, until there are none (sifting).
    """
    groups, accuracy = convex.groups.astype(np.int64), convex.accuracy
    y = x.astype(np.float64)
    gradient = convex.gradient(y)
    reduced, theta = _reduced_costs(gradient, groups, k)
    working = np.zeros(len(x), dtype=bool)
    working[np.argsort(np.abs(reduced), kind="stable")[:_WORKING]] = True
    for _ in range(_ROUNDS):
        inside = np.flatnonzero(working)
        outside = np.where(working, 0.0, y)
        left = k - np.bincount(groups, outside, len(k)).astype(np.int64)
        linear = convex.gradient(outside)[inside]
        part = ConvexProblem(convex.block(inside), linear, groups[inside], left)
        iterate = Iterate(y[inside], np.empty(len(inside)), np.empty(len(k)))
        _relax_in_time(part, iterate, accuracy, request)
        y[inside] = iterate.y
        gradient = convex.gradient(y)
        reduced, theta = _reduced_costs(gradient, groups, k)
        wrong = np.where(y == 0, -reduced, np.where(y == 1, reduced, 0.0))
        wrong[working] = 0.0
        if wrong.max(initial=0.0) <= accuracy or request.remaining <= 0:
            break
        worst = np.argsort(-wrong, kind="stable")[:_WORKING]
        working[worst[wrong[worst] > accuracy]] = True
    short = k - np.bincount(groups, y, len(k))
    bound = convex.value(y, gradient) + float(theta @ short)
    bound += float(np.where(reduced > 0, -reduced * y, reduced * (1 - y)).sum())
    return Root(y, bound - convex.slack, reduced)


def _relax_in_time(
    problem: ConvexProblem, iterate: Iterate, accuracy: float, request: Request
) -> None:
    """Move a point to the minimum, in calls that are short enough for the time limit to bind."""
    for _ in range(0, 50 + 5 * len(iterate.y), _STEPS):
        before = iterate.y.copy()
        relax(problem, iterate, accuracy, np.inf, _STEPS)
        if np.array_equal(before, iterate.y) or request.remaining <= 0:
            break


def _reduced_costs(gradient: Vector, groups: Array, k: Array) -> tuple[Vector, Vector]:
    """Return reduced costs and multipliers, between the k-th and next gradient of each group."""
    order = np.lexsort((gradient, groups))
    first = np.searchsorted(groups[order], np.arange(len(k)))
    sizes = np.bincount(groups, minlength=len(k))
    last = first + sizes - 1
    ordered = gradient[order]
    below = ordered[np.clip(first + k - 1, first, last)]
    above = ordered[np.clip(first + k, first, last)]
    theta = np.where(sizes > 0, 0.5 * (below + above), 0.0)
    return gradient - theta[groups], theta


def extract_core(convex: Convex, root: Root, k: Array, cutoff: float) -> Core:
    """Fix every variable whose other value excludes all states below ``cutoff``."""
    open_ = root.bound + np.abs(root.reduced) < cutoff
    x = (~open_ & (root.reduced < 0)).astype(np.uint8)
    index = np.flatnonzero(open_)
    fixed = x.astype(np.float64)
    gradient = convex.gradient(fixed)
    labels, group = np.unique(convex.groups[index], return_inverse=True)
    left = k - np.bincount(convex.groups, fixed, len(k)).astype(np.int64)
    room = np.bincount(convex.groups[index], minlength=len(k))
    linear = np.ascontiguousarray(gradient[index])
    return Core(
        problem=ConvexProblem(convex.block(index), linear, group.astype(np.int64), left[labels]),
        constant=convex.value(fixed, gradient),
        index=index,
        x=x,
        feasible=bool(((left >= 0) & (left <= room)).all()),
    )
