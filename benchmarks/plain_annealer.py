# ruff: noqa: NPY002 - numba compiles the legacy generator, one a thread
"""The annealer that a cached field makes obsolete: O(n) for each proposal, fixed schedule.

Written from the description of the paper's solver, and compiled, so that the comparison is
with its method and not with an interpreter: it starts at the status quo; the inverse
temperature goes from 1e-3 by factors of 1.1 to 100 (121 of them), one sweep each; a sweep
proposes, for every variable, a swap with a uniformly chosen one of the opposite value, whose
change of energy is summed anew; coefficients are scaled to a mean of 1 beforehand.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO

Array = npt.NDArray[Any]

FIRST, FACTOR, LAST = 1e-3, 1.1, 100.0


def plain_anneal(problem: CardinalityQUBO, start: Array, seed: int = 0) -> Array:
    """Return the best state met, from a feasible start; one restart."""
    Q = np.ascontiguousarray(problem.Q, dtype=np.float64)
    filled = np.abs(Q[Q != 0])
    Q = Q / (filled.mean() if len(filled) else 1.0)
    return _anneal(Q, start.astype(np.uint8), seed)


@numba.njit(cache=True, fastmath=True)
def _field(Q: Array, x: Array, i: int) -> float:
    total = 0.0
    for j in range(len(x)):
        total += Q[i, j] * x[j]
    return Q[i, i] + 2.0 * (total - Q[i, i] * x[i])


@numba.njit(cache=True)
def _anneal(Q: Array, x: Array, seed: int) -> Array:
    np.random.seed(seed)
    n = len(x)
    best = x.copy()
    energy = lowest = 0.0
    beta = FIRST
    while beta < LAST:
        changed = False
        for i in range(n):
            j = np.random.randint(n)
            while x[j] == x[i]:
                j = np.random.randint(n)
            out, into = (i, j) if x[i] else (j, i)
            delta = _field(Q, x, into) - _field(Q, x, out) - 2.0 * Q[out, into]
            # The acceptance rule is on the Ising scale, twice that of the QUBO.
            if delta <= 0 or np.random.random() < np.exp(-2.0 * beta * delta):
                x[out], x[into] = 0, 1
                energy += delta
                changed = changed or delta != 0
                if energy < lowest:
                    lowest = energy
                    best[:] = x
        if not changed:
            break
        beta *= FACTOR
    return best
