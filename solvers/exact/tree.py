"""Branch and bound over the nodes of a pool."""

from __future__ import annotations

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
from solvers.exact.relaxation import relax

# Slots of the tree's counters.
OPEN, NODES, FOUND = range(3)


@jit
def explore(
    P: Array,
    linear: Array,
    constant: float,
    group: Array,
    k: Array,
    status: Array,
    points: Array,
    bounds: Array,
    free: Array,
    heap: Array,
    best: Array,
    incumbent: Array,
    counters: Array,
    accuracy: float,
    slack: float,
    tolerance: float,
    limit: int,
) -> None:
    """Process up to ``limit`` nodes, the one with the lowest bound first.

    Parameters
    ----------
    P, linear, constant, group, k
        The problem: minimise ``xᵀPx + linearᵀx + constant`` with ``k_g`` ones in group
        ``g``; ``P`` positive definite.
    status, points, bounds, free : shapes (slots, n), (slots, n), (slots,), (slots,)
        The node in each slot: variables fixed to 0 or 1 (:data:`~solvers.exact.node.FREE`
        if not), where its relaxation starts, its lower bound, how many are free.
    heap : shape (slots,)
        See :mod:`solvers.exact.node_heap`. When slots run short the deepest node is taken
        instead, of which at most n slots can come.
    best, incumbent : shapes (n,), (1,)
        The best state known and its energy; replaced where a rounding is better.
    counters : shape (3,)
        Open nodes, nodes processed, incumbents found.
    accuracy, slack, tolerance : float
        Multipliers of a relaxation wrong by less are left; what rounding may have added to
        a bound; a node that can't improve on the incumbent by more than ``tolerance`` is
        cut off.
    limit : int
        Nodes to process in this call.
    """
    slots, n = status.shape
    index = np.empty(n, np.int64)
    for _ in range(limit):
        if counters[OPEN] == 0:
            return
        crowded = counters[OPEN] + n + 2 > slots
        where = deepest(heap, free, counters[OPEN]) if crowded else 0
        slot = pop(heap, bounds, where, counters[OPEN])
        counters[OPEN] -= 1
        cutoff = incumbent[0] - tolerance
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
        gradient, theta = np.empty(m), np.empty(len(k))
        lower = bounds[slot]
        if m:
            target = cutoff + slack - con
            proven = relax(sub, lin, labels, wanted, z, gradient, theta, accuracy, target)
            if proven + con - slack > lower:  # also where it is not a number
                lower = proven + con - slack
        x = round_point(z, labels, wanted)
        found = con + energy(sub, lin, x)
        if found < incumbent[0]:
            incumbent[0] = found
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
        if left == 0:  # one state is left, if it is feasible: its turn comes
            continue
        pick = branching_variable(sub, labels, z, state, index, gradient, theta)
        other = heap[counters[OPEN]]
        for i in range(n):  # a loop: assigning slices compiles for seconds
            status[other, i] = state[i]
            points[other, i] = y[i]
        bounds[other] = lower
        counters[OPEN] += 1
        sift_up(heap, bounds, counters[OPEN] - 1)
        for value in range(2):
            child = slot if value == 0 else other
            free[child] = left - 1
            status[child, index[pick]] = value
            fix_and_rebalance(points[child], status[child], group, index[pick], gradient, index, m)
