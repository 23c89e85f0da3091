"""The last look: swaps over all pairs of a group, until none improves, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.curvature import add_column, add_row, gradient
from solvers.anneal.relax import open_sides, scan, thresholds
from solvers.anneal.simd import DOT_COLUMNS, DOT_ROWS, Real, dots, fmin, jit, round_up

Array = npt.NDArray[Any]

#: Ones whose partners are looked at together.
_ROWS = 64


@jit
def _side(
    x: Array, g: Array, group_lanes: Array, group: int, sign: Real, bound: Real, found: Array
) -> int:
    """Collect a group's ones with a gradient above a bound, or its zeros with one below.

    ``sign`` is 1 for the ones, -1 for the zeros. Returns their number; ``found`` is padded
    by its first to a multiple of 8.
    """
    lanes, count = group_lanes[-1], 0
    for first in range(0, len(x), lanes):
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            v = first + lane
            if v >= len(x):
                break
            wanted = x[v] > 0 if sign > 0 else x[v] == 0
            if wanted and sign * (g[v] - bound) > 0:
                found[count] = v
                count += 1
    for t in range(count, round_up(count)):
        found[t] = found[0]
    return count


@jit
def _norm(column: Array) -> Real:
    total = np.float32(0)
    for r in range(len(column)):
        total += column[r] * column[r]
    return total


@jit
def _best_swap(
    columns: Array, g: Array, ones: Array, leaving: int, zeros: Array, entering: int, least: Real
) -> tuple[int, int]:
    """Find the first good swap among these variables, ``_ROWS`` ones at a time; -1, -1 if none.

    Swapping i for j changes the energy by ``g_j - g_i + ‖a_i - a_j‖²``.
    """
    none = np.float32(np.inf)
    width = round_up(entering)
    products = np.empty((round_up(leaving), width), np.float32)
    rises = np.empty(width, np.float32)
    for b in range(width):
        rises[b] = g[zeros[b]] + _norm(columns[zeros[b]])
    for first in range(0, leaving, _ROWS):
        best, i, j = np.float32(-least), -1, -1
        for a in range(first, min(leaving, first + _ROWS)):
            if a % DOT_ROWS == 0:
                for b in range(0, width, DOT_COLUMNS):
                    dots(columns, ones, a, zeros, b, products)
            row, lowest = products[a], none
            for b in range(width):
                lowest = fmin(lowest, rises[b] - (row[b] + row[b]))
            change = lowest + _norm(columns[ones[a]]) - g[ones[a]]
            if change < best:
                best, i = change, a
        if i >= 0:
            lowest = none
            for b in range(entering):
                if rises[b] - 2 * products[i, b] < lowest:
                    lowest, j = rises[b] - 2 * products[i, b], b
            return ones[i], zeros[j]
    return -1, -1


@jit
def _polish_factored(
    columns: Array, linear: Array, x: Array, s: Array, g: Array, group_lanes: Array, least: Real
) -> None:
    """Only pairs with ``g_j < g_i`` can improve: few are left near a relaxed optimum."""
    size, lanes, groups = len(x), group_lanes[-1], len(group_lanes) - 1
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    down, up = np.empty(groups, np.float32), np.empty(groups, np.float32)
    enter, leave = np.empty(size, np.float32), np.empty(size, np.float32)
    ones, zeros = np.empty(size + 8, np.int64), np.empty(size + 8, np.int64)
    open_sides(x, enter, leave, ones)
    swaps, group = 0, group_lanes[0]  # 0, of the type that it has later
    scan(g, enter, leave, low, high)
    thresholds(low, high, group_lanes, down, up)
    while group < groups and swaps < 4 * size:
        leaving, entering = 0, 0
        if down[group] < up[group]:
            leaving = _side(x, g, group_lanes, group, np.float32(1), down[group], ones)
            entering = _side(x, g, group_lanes, group, np.float32(-1), up[group], zeros)
        i, j = -1, -1
        if leaving > 0 and entering > 0:
            i, j = _best_swap(columns, g, ones, leaving, zeros, entering, least)
        if i < 0:
            group += 1
            continue
        x[i], x[j] = 0, 1
        add_column(columns[i], s, np.float32(-1))
        add_column(columns[j], s, np.float32(1))
        gradient(columns, linear, s, g, 0, size)
        open_sides(x, enter, leave, ones)
        scan(g, enter, leave, low, high)
        thresholds(low, high, group_lanes, down, up)
        swaps += 1
        group = 0


@jit
def _polish_dense(
    Q: Array, curv: Array, x: Array, g: Array, group_lanes: Array, least: Real
) -> None:
    size, lanes = len(x), group_lanes[-1]
    none = np.float32(np.inf)
    # Adding the curvature turns the gradient of a zero into its field.
    shut, group_of = np.empty(size, np.float32), np.empty(size, np.int64)
    for v in range(size):
        shut[v] = curv[v] if x[v] == 0 else none
    for group in range(len(group_lanes) - 1):
        for first in range(0, size, lanes):
            for lane in range(group_lanes[group], group_lanes[group + 1]):
                if first + lane < size:
                    group_of[first + lane] = group
    swaps, quiet, i = 0, 0, 0
    while quiet < size and swaps < 100 * size:
        quiet += 1
        if x[i] > 0:
            row, own, lowest = Q[i], group_of[i], none
            for v in range(size):
                value = g[v] + shut[v] - (row[v] + row[v])
                lowest = fmin(lowest, value if group_of[v] == own else none)
            if lowest - (g[i] - curv[i]) < -least:
                j, lowest = -1, none
                for v in range(size):
                    value = g[v] + shut[v] - (row[v] + row[v])
                    if value < lowest and group_of[v] == own:
                        j, lowest = v, value
                add_row(Q, curv, g, i, np.float32(-1))
                add_row(Q, curv, g, j, np.float32(1))
                x[i], x[j] = 0, 1
                shut[i], shut[j] = curv[i], none
                swaps += 1
                quiet = 0
        i = i + 1 if i + 1 < size else 0


@jit
def polish(
    matrix: Array,
    factored: bool,
    linear: Array,
    curv: Array,
    x: Array,
    s: Array,
    g: Array,
    group_lanes: Array,
    least: Real,
) -> None:
    """Swap inside groups until no swap gains more than ``least``, in place.

    ``x`` is binary by position (negative where empty), ``s`` and ``g`` fit it; see
    :mod:`solvers.anneal.curvature`.
    """
    if factored:
        _polish_factored(matrix, linear, x, s, g, group_lanes, least)
    else:
        _polish_dense(matrix, curv, x, g, group_lanes, least)
