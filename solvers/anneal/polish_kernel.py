"""Final descent: swaps over all pairs of a group until none improves, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.core_selection import select_smallest
from solvers.anneal.quadratic import (
    Point,
    Quadratic,
    add_column,
    add_row,
    gradient,
    gradient_at,
    refresh,
)
from solvers.anneal.simd import DOT_COLUMNS, DOT_ROWS, Real, dots, fmin, jit, round_up
from solvers.anneal.thresholds import group_thresholds, lane_extremes, movable_sides, new_conditions

Array = npt.NDArray[Any]

#: Number of ones whose partners are evaluated together.
_ROWS = 64
#: Relative rounding error of a gradient.
_NOISE = np.float32(1e-6)


@jit
def _side(
    point: Point,
    group_lanes: Array,
    group: int,
    sign: Real,
    bound: Real,
    score: Array,
    found: Array,
) -> int:
    """Collect a group's ones with a gradient above a bound, or its zeros with one below.

    ``sign`` is 1 for the ones, -1 for the zeros. If there are more than ``found`` has room for,
    those furthest beyond the bound are taken. Returns their number; ``found`` is padded with its
    first to a multiple of 8. ``score`` is infinite on entry and on exit.
    """
    x, g = point.x, point.g
    lanes, none, count = group_lanes[-1], np.float32(np.inf), 0
    furthest = np.float32(0)
    for first in range(0, len(x), lanes):
        for lane in range(group_lanes[group], min(group_lanes[group + 1], len(x) - first)):
            v = first + lane
            if (x[v] > 0 if sign > 0 else x[v] == 0) and sign * (g[v] - bound) > 0:
                if count < len(found):
                    found[count] = v
                score[v] = sign * (g[v] - bound)
                furthest = max(furthest, score[v])
                count += 1
    crowded = count > len(found)
    for first in range(0, len(x), lanes):
        for lane in range(group_lanes[group], min(group_lanes[group + 1], len(x) - first)):
            if score[first + lane] < none:
                score[first + lane] = furthest - score[first + lane] if crowded else none
    if crowded:
        count = len(found)
        select_smallest(score, found)
        score[:] = none
    past = np.empty(count, np.float32)
    for t in range(count):
        past[t] = -sign * g[found[t]]
    found[:count] = found[:count][np.argsort(past)]
    for t in range(count, min(round_up(count), len(found))):
        found[t] = found[0]
    return count


@jit
def _noise(linear: Any, g: Any, curv: Any) -> Any:
    """Estimate the rounding error of a variable's field."""
    return _NOISE * (abs(linear) + abs(g) + curv)


@jit
def _swap_pairs(
    quadratic: Quadratic, point: Point, ones: Array, leaving: int, zeros: Array, entering: int
) -> bool:
    """Make the best swaps between these variables, for ``_ROWS`` ones at a time.

    Swapping i for j changes the energy by ``g_j - g_i + ‖a_i - a_j‖²``. Returns whether there was
    a swap. Changes below the rounding error of the gradients don't count.
    """
    columns, _, linear, curv = quadratic
    x, s, g = point
    none = np.float32(np.inf)
    found = False
    products = np.empty((_ROWS, round_up(entering)), np.float32)
    rises = np.empty(round_up(entering), np.float32)
    for first in range(0, leaving, _ROWS):
        block = ones[first : first + _ROWS]
        rows = min(leaving - first, _ROWS)
        # Both lists are sorted, and only partners with a smaller gradient can improve.
        near = entering
        while near > 0 and g[zeros[near - 1]] >= g[block[0]]:
            near -= 1
        width = round_up(near)
        for a in range(0, rows, DOT_ROWS):
            for b in range(0, width, DOT_COLUMNS):
                dots(columns, block, a, zeros, b, products)
        while True:
            for b in range(width):
                v = zeros[b]
                rises[b] = g[v] + curv[v] + _noise(linear[v], g[v], curv[v]) if x[v] == 0 else none
            best, i = np.float32(0), -1
            for a in range(rows):
                if x[block[a]] > 0:
                    row, lowest = products[a], none
                    for b in range(width):
                        lowest = fmin(lowest, rises[b] - (row[b] + row[b]))
                    v = block[a]
                    change = lowest + curv[v] - g[v] + _noise(linear[v], g[v], curv[v])
                    if change < best:
                        best, i = change, a
            if i < 0:
                break
            lowest, j = none, -1
            for b in range(width):
                if rises[b] - 2 * products[i, b] < lowest:
                    lowest, j = rises[b] - 2 * products[i, b], b
            x[block[i]], x[zeros[j]] = 0, 1
            add_column(columns[block[i]], s, np.float32(-1))
            add_column(columns[zeros[j]], s, np.float32(1))
            gradient_at(columns, linear, s, g, ones[:leaving])
            gradient_at(columns, linear, s, g, zeros[:entering])
            found = True
    return found


@jit
def _polish_factored(
    quadratic: Quadratic, point: Point, group_lanes: Array, passes: int, most: int
) -> None:
    """Swap pairs with ``g_j < g_i``, the only ones that can improve; few near a relaxed optimum."""
    columns, linear = quadratic.matrix, quadratic.linear
    x, s, g = point
    size, groups = len(x), len(group_lanes) - 1
    conditions = new_conditions(size, group_lanes)
    down, up = conditions.down, conditions.up
    room = min(round_up(size), round_up(most))
    ones, zeros = np.empty(room, np.int64), np.empty(room, np.int64)
    at, score = np.empty(size, np.int64), np.full(size, np.float32(np.inf))
    one = np.float32(1)
    for _ in range(passes):
        found = False
        movable_sides(x, conditions, at)
        lane_extremes(g, conditions)
        group_thresholds(conditions, group_lanes)
        for group in range(groups):
            if down[group] < up[group]:
                leaving = _side(point, group_lanes, group, one, down[group], score, ones)
                entering = _side(point, group_lanes, group, -one, up[group], score, zeros)
                if found:
                    gradient_at(columns, linear, s, g, ones[:leaving])
                    gradient_at(columns, linear, s, g, zeros[:entering])
                if leaving > 0 and entering > 0:
                    found |= _swap_pairs(quadratic, point, ones, leaving, zeros, entering)
        if not found:
            break
        gradient(columns, linear, s, g, 0, size)


@jit
def _polish_dense(quadratic: Quadratic, point: Point, group_lanes: Array) -> None:
    Q, curv, x, g = quadratic.matrix, quadratic.curv, point.x, point.g
    least = _NOISE * np.abs(g).mean()
    size, lanes = len(x), group_lanes[-1]
    none = np.float32(np.inf)
    # The field of a zero is its gradient plus the curvature.
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
def polish(quadratic: Quadratic, point: Point, group_lanes: Array, passes: int, most: int) -> None:
    """Swap inside groups until no swap gains more than the rounding error, in place.

    With factors, it stops after ``passes`` passes, and considers at most ``most`` variables of
    either side, the most promising ones.

    The point is binary; its ``s`` and ``g`` are computed afresh.
    """
    refresh(quadratic, point)
    if quadratic.factored:
        _polish_factored(quadratic, point, group_lanes, passes, most)
    else:
        _polish_dense(quadratic, point, group_lanes)
