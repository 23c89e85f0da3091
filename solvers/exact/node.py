"""Operations on one node: restriction, rounding and branching."""

from __future__ import annotations

import numpy as np

from solvers._numba import Array, jit
from solvers.exact.relaxation import ConvexProblem, Iterate

#: Status of a variable that is not fixed to 0 or 1.
FREE = -1


@jit
def fix_forced_groups(state: Array, group: Array, wanted: Array, index: Array) -> int:
    """Fix groups without a choice; return the number of free variables, -1 if infeasible.

    ``index`` lists the free variables. ``wanted`` has the cardinalities on entry, and the numbers
    of free variables to set on exit.
    """
    room = np.zeros(len(wanted), np.int64)
    for i in range(len(state)):
        if state[i] == FREE:
            room[group[i]] += 1
        elif state[i] == 1:
            wanted[group[i]] -= 1
    for g in range(len(wanted)):
        if wanted[g] < 0 or wanted[g] > room[g]:
            return -1
    m = 0
    for i in range(len(state)):
        if state[i] == FREE:
            g = group[i]
            if wanted[g] == 0:
                state[i] = 0
            elif wanted[g] == room[g]:
                state[i] = 1
            else:
                index[m] = i
                m += 1
    for g in range(len(wanted)):
        if wanted[g] == room[g]:
            wanted[g] = 0
    return m


@jit
def restrict(
    P: Array, linear: Array, constant: float, state: Array, index: Array, m: int
) -> tuple[Array, Array, float]:
    """Return matrix, linear terms and constant of the problem in the free variables."""
    sub, lin = np.empty((m, m)), np.empty(m)
    for a in range(m):
        row = P[index[a]]
        lin[a] = linear[index[a]]
        for b in range(m):
            sub[a, b] = row[index[b]]
    for j in range(len(state)):
        if state[j] == 1:
            row = P[j]
            constant += linear[j] + row[j]
            for a in range(m):
                lin[a] += 2.0 * row[index[a]]
            for i in range(j):
                if state[i] == 1:
                    constant += 2.0 * row[i]
    return sub, lin, constant


@jit
def round_point(y: Array, group: Array, k: Array) -> Array:
    """Set the largest entries of each group to 1."""
    x = np.zeros(len(y), np.uint8)
    left = k.copy()
    for i in range(len(y)):
        if y[i] == 1.0 and left[group[i]] > 0:
            left[group[i]] -= 1
            x[i] = 1
    for g in range(len(k)):
        while left[g] > 0:
            pick = -1
            for i in range(len(y)):
                if group[i] == g and not x[i] and (pick < 0 or y[i] > y[pick]):
                    pick = i
            left[g] -= 1
            x[pick] = 1
    return x


@jit
def energy(P: Array, linear: Array, x: Array) -> float:
    """Return ``xᵀPx + linearᵀx`` of a state."""
    total = 0.0
    for i in range(len(x)):
        if x[i]:
            total += linear[i]
            for j in range(len(x)):
                if x[j]:
                    total += P[i, j]
    return total


@jit
def branching_variable(problem: ConvexProblem, iterate: Iterate, state: Array, index: Array) -> int:
    """Choose the free variable with the largest ``P_ii y_i (1 - y_i)``.

    Returns its place in ``index``; the first free one if all values are NaN.
    """
    P, group = problem.P, problem.group
    y, gradient, theta = iterate
    pick, most = -1, -np.inf
    for i in range(len(y)):
        if state[index[i]] == FREE:
            stake = P[i, i] * y[i] * (1.0 - y[i])
            if stake == 0.0:
                stake = -abs(gradient[i] - theta[group[i]])
            if pick < 0 or stake > most:
                pick, most = i, stake
    return pick


@jit
def fix_and_rebalance(
    y: Array,
    state: Array,
    group: Array,
    fixed: int,
    gradient: Array,
    index: Array,
) -> None:
    """Set ``y`` to the newly fixed value, and restore the sum of the variable's group."""
    g = group[fixed]
    missing = y[fixed] - state[fixed]
    y[fixed] = state[fixed]
    room = 0.0
    for i in range(len(y)):
        if state[i] == FREE and group[i] == g and 0.0 < y[i] < 1.0:
            room += 1.0 - y[i] if missing > 0.0 else y[i]
    if room > 0.0:
        share = min(1.0, abs(missing) / room)
        for i in range(len(y)):
            if state[i] == FREE and group[i] == g and 0.0 < y[i] < 1.0:
                y[i] += share * (1.0 - y[i]) if missing > 0.0 else -share * y[i]
        missing -= share * room if missing > 0.0 else -share * room
    # The rest is distributed to the variables with the best gradients.
    while abs(missing) > 1e-13:
        pick = -1
        value = 0.0
        for a in range(len(gradient)):
            i = index[a]
            if state[i] == FREE and group[i] == g:
                if missing > 0.0 and y[i] < 1.0 and (pick < 0 or gradient[a] < value):
                    pick, value = i, gradient[a]
                if missing < 0.0 and y[i] > 0.0 and (pick < 0 or gradient[a] > value):
                    pick, value = i, gradient[a]
        if pick < 0:
            return
        move = min(missing, 1.0 - y[pick]) if missing > 0.0 else max(missing, -y[pick])
        y[pick] += move
        missing -= move
