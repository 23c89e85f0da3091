"""Annealing and descent on a core of a problem with a budget, compiled.

As in :mod:`solvers.anneal.core`, the core has its own coupling matrix and cached local fields, so
that a move is evaluated in O(1) and applied in one pass over a row. Moves are flips, swaps of a
one with a zero anywhere, and chains (:func:`_chain`); all keep to the budget, which is counted in
whole numbers, and to the counts of the groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import Real, jit

Array = npt.NDArray[Any]

#: Factor by which a trip cools.
_COOLING = 100.0
#: Largest number of passes of a descent.
_PASSES = 50


class Core(NamedTuple):
    """A core's variables at a state; ``x``, ``f``, ``counts`` and ``spare`` change in place."""

    C: Array
    """Rows of ``Q``, float64, shape (c, c)."""
    base: Array
    """Fields where the core's other variables are 0, shape (c,)."""
    x: Array
    """uint8, shape (c,)."""
    f: Array
    """Local fields, shape (c,)."""
    costs: Array
    """In whole units, int64, shape (c,)."""
    groups: Array
    """int64, shape (c,)."""
    counts: Array
    """Ones of each group in the whole problem, shape (groups,)."""
    least: Array
    most: Array
    spare: Array
    """Saving above the budget, int64, shape (1,)."""


@jit
def refresh(core: Core) -> None:
    """Recompute the fields ``f_v = base_v + 2 Σ_{u≠v} C_vu x_u``."""
    C, base, x, f = core.C, core.base, core.x, core.f
    for v in range(len(f)):
        f[v] = base[v]
    for u in range(len(x)):
        if x[u]:
            row, kept = C[u], f[u]
            for v in range(len(f)):
                f[v] += row[v] + row[v]
            f[u] = kept


@jit
def _energy(core: Core) -> Real:
    """Compute the energy of the core from its fields: ``½ Σ x_v (base_v + f_v)``."""
    total = 0.0
    for v in range(len(core.x)):
        if core.x[v]:
            total += core.base[v] + core.f[v]
    return 0.5 * total


@jit
def _flip(core: Core, i: int) -> None:
    """Flip a variable, and update fields, counts and savings."""
    C, x, f = core.C, core.x, core.f
    step = 1 - 2 * np.int64(x[i])
    row, kept, twice = C[i], f[i], 2.0 * step
    for v in range(len(f)):
        f[v] += twice * row[v]
    f[i] = kept
    x[i] = 1 - x[i]
    core.counts[core.groups[i]] += step
    core.spare[0] += step * core.costs[i]


@jit
def _may_flip(core: Core, i: int) -> bool:
    """Whether a flip keeps to the counts; whatever the budget."""
    g = core.groups[i]
    if core.x[i]:
        return bool(core.counts[g] > core.least[g])
    return bool(core.counts[g] < core.most[g])


@jit
def _may_swap(core: Core, i: int, j: int) -> bool:
    """Whether clearing ``i`` and setting ``j`` keeps to budget and counts."""
    if core.spare[0] - core.costs[i] + core.costs[j] < 0:
        return False
    g, h = core.groups[i], core.groups[j]
    return bool(g == h or (core.counts[g] > core.least[g] and core.counts[h] < core.most[h]))


@jit
def _anneal(core: Core, hot: Real, sweeps: int, state: Array, logs: Array) -> None:
    """Propose flips and swaps for a few sweeps, accepted by Metropolis' rule."""
    C, x, f, costs = core.C, core.x, core.f, core.costs
    size = np.uint64(len(x))
    r = np.uint64(state[0])
    mask = np.uint64(0xFFFFFF)
    temperature = hot
    for _ in range(sweeps):
        for _ in range(len(x)):
            r ^= r << np.uint64(13)
            r ^= r >> np.uint64(7)
            r ^= r << np.uint64(17)
            i = np.int64(((r & mask) * size) >> np.uint64(24))
            j = np.int64((((r >> np.uint64(24)) & mask) * size) >> np.uint64(24))
            limit = temperature * logs[np.int64(r >> np.uint64(56))]
            if x[i] == x[j]:
                change = -f[i] if x[i] else f[i]
                enough = not x[i] or costs[i] <= core.spare[0]
                if change < limit and enough and _may_flip(core, i):
                    _flip(core, i)
                continue
            if not x[i]:
                i, j = j, i
            if f[j] - f[i] - 2.0 * C[i, j] < limit and _may_swap(core, i, j):
                _flip(core, i)
                _flip(core, j)
        temperature *= _COOLING ** (-1.0 / max(1, sweeps - 1))
    state[0] = np.int64(r)


@jit
def _descend(core: Core, least: Real) -> None:
    """Flip and swap until nothing gains more than ``least``."""
    C, x, f, costs = core.C, core.x, core.f, core.costs
    for _ in range(_PASSES):
        quiet = True
        for i in range(len(x)):
            if not x[i]:
                if f[i] < -least and _may_flip(core, i):
                    _flip(core, i)
                    quiet = False
                continue
            if f[i] > least and costs[i] <= core.spare[0] and _may_flip(core, i):
                _flip(core, i)
                quiet = False
                continue
            pick, lowest = -1, -least
            row = C[i]
            for j in range(len(x)):
                if not x[j]:
                    change = f[j] - f[i] - 2.0 * row[j]
                    if change < lowest and _may_swap(core, i, j):
                        pick, lowest = j, change
            if pick >= 0:
                _flip(core, i)
                _flip(core, pick)
                quiet = False
        if quiet:
            return


@jit
def _chain(core: Core, i: int, least: Real, flipped: Array) -> bool:
    """Flip one variable, restore the budget and clear what has become needless.

    Exchanges an expensive variable for several cheap ones, or the reverse, which no swap can. Zeros
    are set by the smallest rise of the energy per saved unit, ones cleared by the largest fall per
    unit. Everything is undone, and False returned, unless it gains more than ``least``.
    """
    x, f, costs = core.x, core.f, core.costs
    change = -f[i] if x[i] else f[i]
    _flip(core, i)
    flipped[0], count = i, 1
    ended = False
    while not ended and count < len(flipped):
        pick, best = -1, np.inf
        short = -core.spare[0]
        for v in range(len(x)):
            if v == i or not _may_flip(core, v):
                continue
            if short > 0:
                if not x[v] and costs[v] > 0:
                    rate = f[v] / min(costs[v], short)
                    if rate < best:
                        pick, best = v, rate
            elif x[v] and f[v] > 0 and costs[v] <= core.spare[0]:
                rate = -f[v] / max(1, costs[v])
                if rate < best:
                    pick, best = v, rate
        if pick < 0:
            ended = True
        else:
            change += -f[pick] if x[pick] else f[pick]
            _flip(core, pick)
            flipped[count] = pick
            count += 1
    if change < -least and core.spare[0] >= 0:
        return True
    while count > 0:
        count -= 1
        _flip(core, flipped[count])
    return False


@jit
def search_core(
    core: Core, hot: Real, cold: Real, sweeps: int, trips: int, chains: bool, state: Array
) -> Real:
    """Improve a feasible state on a core; return the change of the energy (≤ 0).

    A trip is an anneal and a descent, from the best state so far. The first temperature of a trip
    is drawn between ``cold`` and ``hot``, uniformly in its logarithm.

    Parameters
    ----------
    core : Core
        Left at the best state.
    hot, cold : float
    sweeps, trips : int
    chains : bool
        Whether to try chains; of no use if all costs are equal.
    state : (1,) int64
        State of the random numbers, not 0.
    """
    x, counts, spare = core.x, core.counts, core.spare
    size = len(x)
    refresh(core)
    start = _energy(core)
    scale = 0.0
    for v in range(size):
        scale += abs(core.f[v])
    least = 1e-9 * scale / max(1, size) + 1e-300
    logs = np.empty(256)
    for t in range(256):
        logs[t] = -np.log((t + 0.5) / 256)
    best, best_counts = x.copy(), counts.copy()
    lowest, best_spare = start, spare[0]
    flipped = np.empty(4 * size + 8, np.int64)
    for trip in range(trips + 1):
        if trip > 0:
            r = np.uint64(state[0])
            r ^= r << np.uint64(13)
            r ^= r >> np.uint64(7)
            r ^= r << np.uint64(17)
            state[0] = np.int64(r)
            share = np.float64(np.int64(r >> np.uint64(12))) * 2.0**-52
            _anneal(core, cold * (hot / cold) ** share, sweeps, state, logs)
            refresh(core)
        _descend(core, least)
        if chains and (trip == trips or _energy(core) < lowest):
            gained = True
            for _ in range(_PASSES):
                if not gained:
                    break
                gained = False
                for i in range(size):
                    if _may_flip(core, i) and _chain(core, i, least, flipped):
                        gained = True
                if gained:
                    _descend(core, least)
        energy = _energy(core)
        if energy < lowest - least:
            lowest, best_spare = energy, spare[0]
            best[:] = x
            best_counts[:] = counts
        else:
            x[:] = best
            counts[:] = best_counts
            spare[0] = best_spare
            refresh(core)
    return lowest - start


@jit
def relax(
    columns: Array,
    factored: bool,
    linear: Array,
    curvature: Array,
    costs: Array,
    budget: float,
    groups: Array,
    least: Array,
    most: Array,
    y: Array,
    s: Array,
    multiplier: Array,
    shifts: Array,
    sweeps: int,
) -> None:
    """Approach the minimum over ``0 ≤ y ≤ 1`` by coordinate descent and dual ascent.

    ``f(y) = Σ linear_i y_i + curvature_i y_i² + 2 Σ_{i<j} Q_ij y_i y_j``. The multipliers of the
    budget and of the counts are moved several times a sweep by a Newton step of the dual whose
    Hessian is taken as diagonal.

    Parameters
    ----------
    columns : float32
        With factors: columns of ``A`` as rows, shape (n, m), and ``s = A y``, shape (m,). Else
        ``Q``, shape (n, n), and ``s`` is ``2 Σ_{j≠i} Q_ij y_j``, shape (n,).
    costs, budget
        In a unit in which costs are about 1.
    y : shape (n,)
        Start and result.
    multiplier, shifts : shapes (1,) and (groups,)
        Multipliers; changed in place.
    """
    n, depth = columns.shape
    num_groups = len(least)
    counts = np.zeros(num_groups)
    slopes = np.zeros(num_groups)
    saved, typical = 0.0, 0.0
    for i in range(n):
        counts[groups[i]] += y[i]
        saved += costs[i] * y[i]
        typical += costs[i] * costs[i] / (2.0 * curvature[i])
    typical = max(typical / n, 1e-300)
    part = max(1, n // 4)
    slope = 0.0
    for _ in range(sweeps):
        for i in range(n):
            row = columns[i]
            g = np.float32(0.0)
            if factored:
                for v in range(depth):
                    g += row[v] * s[v]
                gradient = linear[i] + 2.0 * np.float64(g)
            else:
                gradient = linear[i] + s[i] + 2.0 * curvature[i] * y[i]
            gradient += shifts[groups[i]] - multiplier[0] * costs[i]
            new = min(1.0, max(0.0, y[i] - gradient / (2.0 * curvature[i])))
            step = new - y[i]
            if 0.0 < new < 1.0:
                slope += costs[i] * costs[i] / (2.0 * curvature[i])
                slopes[groups[i]] += 1.0 / (2.0 * curvature[i])
            if step != 0.0:
                y[i] = new
                move = np.float32(step) if factored else np.float32(2.0 * step)
                kept = s[i % depth]
                for v in range(depth):
                    s[v] += move * row[v]
                if not factored:
                    s[i] = kept
                saved += costs[i] * step
                counts[groups[i]] += step
            if i % part == part - 1:
                if budget > 0.0:
                    change = 0.3 * (budget - saved) / max(slope, typical)
                    room = multiplier[0] + abs(gradient) + 1e-30
                    multiplier[0] = max(0.0, multiplier[0] + min(max(change, -room), room))
                for h in range(num_groups):
                    wrong = max(counts[h] - most[h], 0.0) + min(counts[h] - least[h], 0.0)
                    size = max(slopes[h], 1.0 / (2.0 * curvature[i]))
                    if wrong != 0.0:
                        shifts[h] += 0.3 * wrong / size
                    elif shifts[h] > 0.0:
                        shifts[h] = max(0.0, shifts[h] - 0.3 * (most[h] - counts[h]) / size)
                    elif shifts[h] < 0.0:
                        shifts[h] = min(0.0, shifts[h] + 0.3 * (counts[h] - least[h]) / size)
                slope = 0.0
                slopes[:] = 0.0
