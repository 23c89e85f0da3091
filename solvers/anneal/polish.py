"""The last look: swaps over all pairs of a group, until none improves, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.curvature import add_row, gather, gradient
from solvers.anneal.simd import TILE_COLUMNS, TILE_ROWS, Real, fmin, jit, round_up, tile

Array = npt.NDArray[Any]

#: Ones whose partners are looked at together.
_ROWS = 64


@jit
def _side(
    x: Array, g: Array, group_lanes: Array, group: int, ones: bool, bound: Real, found: Array
) -> int:
    """Collect a group's ones with a gradient above, or its zeros with one below, a bound."""
    lanes, count = group_lanes[-1], 0
    for first in range(0, len(x), lanes):
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            v = first + lane
            if v >= len(x):
                break
            if (x[v] > 0 and g[v] > bound) if ones else (x[v] == 0 and g[v] < bound):
                found[count] = v
                count += 1
    return count


@jit
def _bounds(x: Array, g: Array, group_lanes: Array, group: int) -> tuple[Real, Real]:
    """Find the smallest gradient of a group's zeros and the largest of its ones."""
    lanes = group_lanes[-1]
    smallest, largest = np.float32(np.inf), -np.float32(np.inf)
    for first in range(0, len(x), lanes):
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            v = first + lane
            if v >= len(x):
                break
            if x[v] > 0:
                largest = max(largest, g[v])
            elif x[v] == 0:
                smallest = min(smallest, g[v])
    return smallest, largest


@jit
def polish_factored(
    A: Array, linear: Array, x: Array, s: Array, g: Array, group_lanes: Array, least: Real
) -> int:
    """Make improving swaps until there is none; return how many.

    Swapping i for j changes the energy by ``g_j - g_i + ‖a_i - a_j‖²``: it takes
    ``g_j < g_i``, which leaves few candidates near an optimum of the relaxation.
    """
    m, size = A.shape
    left, right = np.empty((m, _ROWS), np.float32), np.empty((m, 16), np.float32)
    ones, zeros = np.empty(size, np.int64), np.empty(size, np.int64)
    swaps = 0
    for group in range(len(group_lanes) - 1):
        again = True
        while again and swaps < 4 * size:
            again = False
            smallest, largest = _bounds(x, g, group_lanes, group)
            if not smallest < largest:
                break
            leaving = _side(x, g, group_lanes, group, True, smallest, ones)
            entering = _side(x, g, group_lanes, group, False, largest, zeros)
            width = round_up(entering)
            right = np.empty((m, width), np.float32)
            gather(A, zeros, entering, right)
            norms = np.zeros(width, np.float32)
            for r in range(m):
                for t in range(width):
                    norms[t] += right[r, t] * right[r, t]
            products = np.empty((_ROWS, width), np.float32)
            for first in range(0, leaving, _ROWS):
                rows = min(_ROWS, leaving - first)
                gather(A, ones[first:], rows, left)
                for i in range(0, rows, TILE_ROWS):
                    for j in range(0, width, TILE_COLUMNS):
                        tile(left, right, products, i, j)
                best, swap_i, swap_j = np.float32(-least), -1, -1
                for a in range(rows):
                    norm = np.float32(0)
                    for r in range(m):
                        norm += left[r, a] * left[r, a]
                    offset = norm - g[ones[first + a]]
                    lowest = np.float32(np.inf)
                    row = products[a]
                    for b in range(entering):
                        lowest = fmin(lowest, g[zeros[b]] + norms[b] - (row[b] + row[b]))
                    if lowest + offset < best:
                        best, swap_i = lowest + offset, first + a
                if swap_i < 0:
                    continue
                row, lowest = products[swap_i - first], np.float32(np.inf)
                for b in range(entering):
                    value = g[zeros[b]] + norms[b] - (row[b] + row[b])
                    if value < lowest:
                        lowest, swap_j = value, b
                i, j = ones[swap_i], zeros[swap_j]
                x[i], x[j] = 0, 1
                for r in range(m):
                    s[r] += A[r, j] - A[r, i]
                gradient(A, linear, s, g, 0, size)
                swaps += 1
                again = True
                break
    return swaps


@jit
def polish_dense(Q: Array, curv: Array, x: Array, g: Array, group_lanes: Array, least: Real) -> int:
    """Make improving swaps until there is none; return how many."""
    size, lanes = len(x), group_lanes[-1]
    none = np.float32(np.inf)
    # Adding the curvature turns the gradient of a zero into its field.
    shut, group_of = np.empty(size, np.float32), np.empty(lanes, np.int64)
    for v in range(size):
        shut[v] = curv[v] if x[v] == 0 else none
    for group in range(len(group_lanes) - 1):
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            group_of[lane] = group
    single = len(group_lanes) == 2
    swaps, quiet, i = 0, 0, 0
    while quiet < size and swaps < 100 * size:
        quiet += 1
        if x[i] > 0:
            row, own = Q[i], group_of[i % lanes]
            lowest = none
            if single:
                for v in range(size):
                    lowest = fmin(lowest, g[v] + shut[v] - (row[v] + row[v]))
            else:
                for v in range(size):
                    if group_of[v % lanes] == own:
                        lowest = min(lowest, g[v] + shut[v] - (row[v] + row[v]))
            if lowest - (g[i] - curv[i]) < -least:
                j, lowest = -1, none
                for v in range(size):
                    value = g[v] + shut[v] - (row[v] + row[v])
                    if value < lowest and group_of[v % lanes] == own:
                        j, lowest = v, value
                add_row(Q, curv, g, i, np.float32(-1))
                add_row(Q, curv, g, j, np.float32(1))
                x[i], x[j] = 0, 1
                shut[i], shut[j] = curv[i], none
                swaps += 1
                quiet = 0
        i = i + 1 if i + 1 < size else 0
    return swaps
