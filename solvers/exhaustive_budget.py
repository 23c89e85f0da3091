"""Enumeration of all states of a problem with a budget, one flip apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from problems import BudgetQUBO
from solvers._numba import Array, jit
from solvers.base import Outcome, Request
from solvers.errors import UnsupportedError
from solvers.solution import Stop

#: States visited between checks of the clock; energy and fields are recomputed at each.
_CHUNK = 1 << 16


class _Limits(NamedTuple):
    costs: Array
    groups: Array
    least: Array
    most: Array
    budget: int


def check_states(n: int, max_states: int) -> int:
    """Return the number of states of n variables.

    Raises
    ------
    UnsupportedError
        If there are more than ``max_states``.
    """
    if (count := 1 << n) > max_states:
        raise UnsupportedError(
            f"the problem has {count:,} states, more than max_states = {max_states:,}; use solver "
            "'exact', or a larger max_states"
        )
    return count


def enumerate_flips(problem: BudgetQUBO, request: Request, max_states: int) -> Outcome:
    """Visit all ``2ⁿ`` states in the order of the reflected Gray code and keep the best feasible.

    Raises
    ------
    UnsupportedError
        If there are more states than ``max_states``.
    """
    n = problem.n
    count = check_states(n, max_states)
    Q, whole = problem.float64_matrix(), problem.whole
    groups = problem.groups.astype(np.int64)
    limits = _Limits(whole.costs, groups, problem.least, problem.most, whole.budget)
    best, energy = problem.repair(np.zeros(n, np.uint8)), math.inf
    done, stop = 0, Stop.PROVEN
    while done < count and stop is Stop.PROVEN:
        code = done ^ (done >> 1)
        x = ((code >> np.arange(n)) & 1).astype(np.uint8)
        products = Q @ x.astype(np.float64)
        start = float(products[x != 0].sum())
        state = np.empty(n, np.uint8)
        steps = min(_CHUNK, count - done)
        found = _visit(Q, x, 2 * products, start, limits, done, steps, state)
        done += steps
        if found < energy:
            best, energy = state, found
            if request.report(energy + problem.offset, x=best):
                stop = Stop.INTERRUPTED
        if done < count and request.remaining <= 0:
            stop = Stop.TIME_LIMIT
    proven = done == count
    return Outcome(
        samples=best[None],
        stop=Stop.PROVEN if proven else stop,
        proven=proven,
        bound=problem.energy(best) if proven else None,
        info={"states": done},
    )


@jit
def _visit(
    Q: Array,
    x: Array,
    twice: Array,
    energy: float,
    limits: _Limits,
    first: int,
    steps: int,
    best: Array,
) -> float:
    """Visit states ``first … first + steps - 1`` of the Gray code; ``twice`` is 2Qx."""
    costs, groups, least, most, budget = limits
    n = len(x)
    counts = np.zeros(len(least), np.int64)
    saved = -budget
    for i in range(n):
        if x[i]:
            counts[groups[i]] += 1
            saved += costs[i]
    wrong = 0
    for g in range(len(least)):
        wrong += counts[g] < least[g] or counts[g] > most[g]
    lowest = np.inf
    for t in range(first, first + steps):
        if saved >= 0 and wrong == 0 and energy < lowest:
            lowest = energy
            for v in range(n):
                best[v] = x[v]
        if t == first + steps - 1:
            break
        i = 0  # the position of the lowest zero of t flips next
        while (t >> i) & 1:
            i += 1
        step = 1 - 2 * np.int64(x[i])
        energy += step * twice[i] + Q[i, i]
        x[i] += step
        row = Q[i]
        for v in range(n):
            twice[v] += 2 * step * row[v]
        g = groups[i]
        wrong -= counts[g] < least[g] or counts[g] > most[g]
        counts[g] += step
        wrong += counts[g] < least[g] or counts[g] > most[g]
        saved += step * costs[i]
    return lowest
