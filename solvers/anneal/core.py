"""Annealing and descent on a core, a small set of variables with its coupling matrix, compiled.

A core has 64 variables or somewhat more, so that its matrix fits the caches. A swap is evaluated
in O(1) from cached fields, and applied in one vectorised pass over two rows. A *trip* is a short
anneal, from a temperature comparable to the gap to be closed, and a descent to a swap-local
optimum of the core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.core_selection import select_core
from solvers.anneal.quadratic import Point, Quadratic, apply_change, gradient_at, gram
from solvers.anneal.rng import uniform
from solvers.anneal.simd import Real, fmin, jit

Array = npt.NDArray[Any]

#: Factor by which a trip cools.
_COOLING = 100.0


@jit
def _flip(C: Array, x: Array, f: Array, i: int, j: int) -> None:
    """Swap ``i`` out and ``j`` in, updating the fields."""
    out, into = C[i], C[j]
    f_i, f_j = f[i], f[j]
    for v in range(len(f)):
        step = into[v] - out[v]
        f[v] += step + step
    f[i] = f_i + into[i] + into[i]
    f[j] = f_j - out[j] - out[j]
    x[i], x[j] = 0, 1


@jit
def _fields(C: Array, base: Array, x: Array, f: Array) -> None:
    """Recompute the fields ``f_v = base_v + 2 Σ_{u≠v} C_vu x_u``."""
    for v in range(len(f)):
        f[v] = base[v]
    for u in range(len(x)):
        if x[u]:
            row, kept = C[u], f[u]
            for v in range(len(f)):
                f[v] += row[v] + row[v]
            f[u] = kept


@jit
def _energy(base: Array, x: Array, f: Array) -> Real:
    """Compute the energy of the core from its fields: ``½ Σ x_v (base_v + f_v)``."""
    total = 0.0
    for v in range(len(x)):
        if x[v]:
            total += np.float64(base[v]) + np.float64(f[v])
    return 0.5 * total


@jit
def _center_groups(base: Array, starts: Array) -> None:
    """Subtract each group's mean, which does not affect swaps, to reduce rounding errors."""
    for group in range(len(starts) - 1):
        mean = 0.0
        for v in range(starts[group], starts[group + 1]):
            mean += base[v]
        mean /= starts[group + 1] - starts[group]
        for v in range(starts[group], starts[group + 1]):
            base[v] -= np.float32(mean)


@jit
def _descend(C: Array, x: Array, f: Array, shut: Array, starts: Array, least: Real) -> None:
    """Swap each one with its best partner until no swap gains more than ``least``."""
    none = np.float32(np.inf)
    for v in range(len(x)):
        shut[v] = none if x[v] else 0
    quiet = False
    for _ in range(len(x)):
        if quiet:
            break
        quiet = True
        for group in range(len(starts) - 1):
            first, last = starts[group], starts[group + 1]
            # Slices from 0 let the loops be vectorised.
            f_part, shut_part = f[first:last], shut[first:last]
            for i in range(first, last):
                if x[i]:
                    row, lowest = C[i, first:last], none
                    for v in range(len(row)):
                        lowest = fmin(lowest, f_part[v] + shut_part[v] - (row[v] + row[v]))
                    if lowest - f[i] < -least:
                        j, lowest = 0, none
                        for v in range(len(row)):
                            value = f_part[v] + shut_part[v] - (row[v] + row[v])
                            if value < lowest:
                                lowest, j = value, v
                        j += first
                        _flip(C, x, f, i, j)
                        shut[i], shut[j] = 0, none
                        quiet = False


@jit
def _anneal(
    C: Array, x: Array, f: Array, starts: Array, hot: Real, sweeps: int, state: Array, logs: Array
) -> None:
    """Propose swaps inside the groups for a few sweeps, accepted by Metropolis' rule."""
    size, groups = starts[-1], len(starts) - 1
    # The ones of each group, followed by its zeros.
    slots = np.empty(size, np.int64)
    ones, group_of = np.zeros(groups, np.int64), np.empty(size, np.int64)
    for group in range(groups):
        front, back = starts[group], starts[group + 1]
        for v in range(starts[group], starts[group + 1]):
            group_of[v] = group
            if x[v]:
                slots[front] = v
                front += 1
            else:
                back -= 1
                slots[back] = v
        ones[group] = front - starts[group]
    r = np.uint64(state[0])
    mask = np.uint64(0x3FFFF)
    temperature = hot
    for _ in range(sweeps):
        T = np.float32(temperature)
        for _ in range(size):
            r ^= r << np.uint64(13)
            r ^= r >> np.uint64(7)
            r ^= r << np.uint64(17)
            group = 0
            if groups > 1:
                group = group_of[
                    np.int64(((r >> np.uint64(44)) * np.uint64(size)) >> np.uint64(20))
                ]
            first, count = starts[group], ones[group]
            others = starts[group + 1] - first - count
            if count == 0 or others == 0:
                continue
            p = first + np.int64(((r & mask) * np.uint64(count)) >> np.uint64(18))
            q = np.int64((((r >> np.uint64(18)) & mask) * np.uint64(others)) >> np.uint64(18))
            q += first + count
            i, j = slots[p], slots[q]
            change = f[j] - f[i] - (C[i, j] + C[i, j])
            if change < T * logs[np.int64((r >> np.uint64(36)) & np.uint64(0xFF))]:
                _flip(C, x, f, i, j)
                slots[p], slots[q] = j, i
        temperature *= _COOLING ** (-1.0 / (sweeps - 1))
    state[0] = np.int64(r)


@jit
def anneal_core(
    quadratic: Quadratic,
    point: Point,
    chosen: Array,
    starts: Array,
    hot: Real,
    sweeps: int,
    trips: int,
    state: Array,
) -> Real:
    """Improve a binary state on a core by trips; return the change of the energy (≤ 0).

    Parameters
    ----------
    quadratic : Quadratic
    point : Point
        A binary state, improved in place. With factors, ``s`` is updated and ``g`` is not used;
        without, ``g`` is updated.
    chosen : (width,) int64
        Positions of the core, sorted by group, padded with any to a multiple of 8.
    starts : (groups of the core + 1,) int64
        Start of each group in ``chosen``, and the number of variables in the core.
    hot : float
        First temperature of a trip.
    sweeps, trips : int
        Sweeps of a trip, at least 2; number of trips.
    state : (1,) int64
        State of the random numbers, not 0.
    """
    x, s, g = point
    count = starts[-1]
    width = len(chosen)
    C = np.empty((width, width), np.float32)
    gram(quadratic, chosen, C)
    if quadratic.factored:
        gradient_at(quadratic.matrix, quadratic.linear, s, g, chosen)
    f, base = np.empty(width, np.float32), np.empty(width, np.float32)
    shut, change = np.empty(width, np.float32), np.empty(width, np.float32)
    for t in range(width):
        base[t] = g[chosen[t]]
    y = np.zeros(count, np.uint8)
    for t in range(count):
        y[t] = x[chosen[t]] > 0
        base[t] += C[t, t] if not y[t] else -C[t, t]
    for t in range(count):
        if y[t]:
            row, kept = C[t], base[t]
            for v in range(width):
                base[v] -= row[v] + row[v]
            base[t] = kept
    # Smaller changes are within the rounding error of the fields.
    least = 0.0
    for t in range(count):
        for u in range(count):
            least += abs(C[t, u]) * y[u]
        least += abs(base[t])
    least = max(1e-3 * hot, 1e-6 * least / count)
    _center_groups(base, starts)
    logs = np.empty(256, np.float32)
    for t in range(256):
        logs[t] = -np.log((t + 0.5) / 256)
    best = np.empty(count, np.uint8)
    _fields(C, base, y, f)
    start = _energy(base, y, f)
    lowest = start
    for trip in range(trips + 1):
        if trip > 0:
            _anneal(C, y, f, starts, hot, sweeps, state, logs)
            _fields(C, base, y, f)
        _descend(C, y, f, shut, starts, least)
        energy = _energy(base, y, f)
        if energy < lowest - least:
            lowest = energy
            for t in range(count):
                best[t] = y[t]
    if lowest < start - least:
        for t in range(count):
            change[t] = np.float32(best[t]) - x[chosen[t]]
            x[chosen[t]] = best[t]
        apply_change(quadratic, point, chosen[:count], change)
        return lowest - start
    return 0.0


@jit
def search_core(
    quadratic: Quadratic,
    point: Point,
    group_lanes: Array,
    score: Array,
    size: int,
    at_random: bool,
    cool: Real,
    hot: Real,
    sweeps: int,
    trips: int,
    state: Array,
) -> Real:
    """Select a core and improve it; return the change of the energy (≤ 0).

    Without factors the first temperature is drawn from ``cool`` to ``hot``, uniformly in its
    logarithm; with them it is ``hot``. The other arguments are those of :func:`select_core`
    and :func:`anneal_core`.
    """
    chosen, starts = select_core(score, group_lanes, size, at_random, state)
    if not quadratic.factored:
        hot = cool * (hot / cool) ** uniform(state)
    return anneal_core(quadratic, point, chosen, starts, hot, sweeps, trips, state)
