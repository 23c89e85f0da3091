"""Kernel of the branch and bound."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from solvers._numba import Array, jit
from solvers.exact.node import (
    FREE,
    branching_variable,
    energy,
    fix_and_rebalance,
    fix_forced_groups,
    restrict,
    round_point,
)
from solvers.exact.node_heap import deepest, pop, sift_up
from solvers.exact.relaxation import ConvexProblem, Iterate, relax

# Slots of the tree's counters.
OPEN, NODES, FOUND = range(3)


class Nodes(NamedTuple):
    """The open nodes, one in each slot; see :mod:`solvers.exact.node_heap`."""

    status: Array
    """Value of each variable, :data:`~solvers.exact.node.FREE` if open; shape (slots, n)."""
    points: Array
    """Start of the relaxation of the node, shape (slots, n)."""
    bounds: Array
    """Lower bound of the node, shape (slots,)."""
    free: Array
    """Number of free variables of the node, shape (slots,)."""
    heap: Array
    """Order of the slots, shape (slots,)."""


class Incumbent(NamedTuple):
    """The best known state; replaced if the rounding of a node is better."""

    x: Array
    """Shape (n,)."""
    energy: Array
    """Shape (1,)."""


class Margins(NamedTuple):
    """Tolerances of a search."""

    accuracy: float
    """Largest ignored violation of the multipliers of a relaxation."""
    slack: float
    """Largest rounding error of a bound."""
    tolerance: float
    """A node that can't improve on the incumbent by more is cut off."""


@jit
def explore(
    problem: ConvexProblem,
    constant: float,
    nodes: Nodes,
    incumbent: Incumbent,
    counters: Array,
    margins: Margins,
    limit: int,
) -> None:
    """Process up to ``limit`` nodes, the one with the lowest bound first.

    When slots run short, the deepest node is processed instead, which needs at most n slots.

    Parameters
    ----------
    problem : ConvexProblem
    constant : float
        Added to the problem's energies.
    nodes : Nodes
    incumbent : Incumbent
    counters : shape (3,)
        Open nodes, nodes processed, incumbents found.
    margins : Margins
    limit : int
        Nodes to process in this call.
    """
    P, linear, group, k = problem
    status, points, bounds, free, heap = nodes
    best, lowest = incumbent
    accuracy, slack, tolerance = margins
    slots, n = status.shape
    index = np.empty(n, np.int64)
    for _ in range(limit):
        if counters[OPEN] == 0:
            return
        crowded = counters[OPEN] + n + 2 > slots
        where = deepest(heap, free, counters[OPEN]) if crowded else 0
        slot = pop(heap, bounds, where, counters[OPEN])
        counters[OPEN] -= 1
        cutoff = lowest[0] - tolerance
        if bounds[slot] >= cutoff:
            continue
        counters[NODES] += 1
        state, y = status[slot], points[slot]
        wanted = k.copy()
        m = fix_forced_groups(state, group, wanted, index)
        if m < 0:
            continue
        sub, lin, con = restrict(P, linear, constant, state, index, m)
        labels, z = np.empty(m, np.int64), np.empty(m)
        for a in range(m):
            labels[a], z[a] = group[index[a]], y[index[a]]
        node = ConvexProblem(sub, lin, labels, wanted)
        iterate = Iterate(z, np.empty(m), np.empty(len(k)))
        gradient, theta = iterate.gradient, iterate.theta
        lower = bounds[slot]
        if m:
            target = cutoff + slack - con
            proven = relax(node, iterate, accuracy, target, 1 << 40)
            if proven + con - slack > lower:  # also where it is not a number
                lower = proven + con - slack
        x = round_point(z, labels, wanted)
        found = con + energy(sub, lin, x)
        if found < lowest[0]:
            lowest[0] = found
            cutoff = found - tolerance
            counters[FOUND] += 1
            for i in range(n):
                best[i] = state[i] == 1
            for a in range(m):
                best[index[a]] = x[a]
        if m == 0 or lower >= cutoff:
            continue
        for a in range(m):
            y[index[a]] = z[a]
            r = gradient[a] - theta[labels[a]]
            if lower + abs(r) >= cutoff:
                state[index[a]] = 0 if r > 0.0 else 1
        left = 0
        for a in range(m):
            left += state[index[a]] == FREE
        bounds[slot] = lower
        free[slot] = left
        counters[OPEN] += 1
        sift_up(heap, bounds, counters[OPEN] - 1)
        if left == 0:  # a single state, evaluated when the node is processed
            continue
        pick = branching_variable(node, iterate, state, index)
        other = heap[counters[OPEN]]
        for i in range(n):  # a loop, since assigning slices takes seconds to compile
            status[other, i] = state[i]
            points[other, i] = y[i]
        bounds[other] = lower
        counters[OPEN] += 1
        sift_up(heap, bounds, counters[OPEN] - 1)
        for value in range(2):
            child = slot if value == 0 else other
            free[child] = left - 1
            status[child, index[pick]] = value
            fix_and_rebalance(points[child], status[child], group, index[pick], gradient, index)
