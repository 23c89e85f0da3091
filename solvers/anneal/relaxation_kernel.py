"""Minimisation of the convex relaxation by working sets, compiled.

With factors, sweeps come first (:mod:`solvers.anneal.sweep`): the variables on the wrong side of
a threshold are paired, worst with worst, and each pair takes its best step in O(m).

Then each round selects the variables that violate the optimality conditions most (the worst of
every lane on either side) and those between 0 and 1, minimises over this working set by steps on
pairs (sequential minimal optimisation, second-order choice: Fan, Chen and Lin, JMLR 6, 2005), and
updates the gradient. At the end, a block of rank m has few variables between their bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.core_selection import sort_by_group
from solvers.anneal.quadratic import Point, Quadratic, apply_change, gradient, gram
from solvers.anneal.simd import Real, fmax, jit, round_up
from solvers.anneal.thresholds import (
    Conditions,
    find_in_lane,
    group_thresholds,
    lane_extremes,
    movable_sides,
    new_conditions,
    optimality_gap,
)

Array = npt.NDArray[Any]

#: A working set has the variables that violate by more than the first share of the worst
#: violation; its minimisation stops at the second.
_ENTER, _LEAVE = np.float32(0.02), np.float32(0.05)
#: Largest number of passes over the groups of a working set.
_PASSES = 20
#: The relaxation counts as solved when it is provably closer to its optimum than the cost of
#: rounding one variable, or when a round gains less than this share of the total, the limit of
#: float32.
_ENOUGH = np.float32(1e-7)


@jit
def _violation_threshold(
    conditions: Conditions, group_lanes: Array, least: Real, room: int
) -> Real:
    """Raise the smallest selected violation until about ``room`` variables exceed it."""
    low, high, down, up = conditions.low, conditions.high, conditions.down, conditions.up
    if 2 * len(low) <= room:
        return least
    most = least
    for group in range(len(down)):
        most = max(most, up[group] - down[group])
    for _ in range(12):
        middle, count = np.float32(0.5) * (least + most), 0
        for group in range(len(down)):
            for lane in range(group_lanes[group], group_lanes[group + 1]):
                count += (high[lane] - down[group] >= middle) + (up[group] - low[lane] >= middle)
        if count > room:
            least = middle
        else:
            most = middle
    return most


@jit
def _select(
    g: Array,
    conditions: Conditions,
    group_lanes: Array,
    worst: Real,
    inside: Array,
    chosen: Array,
    marked: Array,
) -> int:
    """Write the working set to ``chosen``; return its size."""
    enter, leave, low, high, down, up = conditions
    lanes, count = len(low), 0
    for t in range(min(len(inside), len(chosen) // 2)):
        chosen[count] = inside[t]
        marked[inside[t]] = 1
        count += 1
    bar = _violation_threshold(conditions, group_lanes, _ENTER * worst, len(chosen) - count)
    for group in range(len(down)):
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            if count < len(chosen) and high[lane] - down[group] >= bar:
                v = find_in_lane(g, leave, lane, lanes, high[lane])
                if marked[v] == 0:
                    chosen[count] = v
                    marked[v] = 1
                    count += 1
            if count < len(chosen) and up[group] - low[lane] >= bar:
                v = find_in_lane(g, enter, lane, lanes, low[lane])
                if marked[v] == 0:
                    chosen[count] = v
                    marked[v] = 1
                    count += 1
    for t in range(count):
        marked[chosen[t]] = 0
    return count


@jit
def _minimise_pairs(
    C: Array,
    curv: Array,
    first: int,
    last: int,
    x: Array,
    g: Array,
    enter: Array,
    leave: Array,
    score: Array,
    enough: Real,
) -> bool:
    """Minimise over one group, entries first … last of the working set, by steps on pairs.

    Pairs the largest gradient that may fall with the partner of the largest predicted decrease.
    Returns whether there was a step.
    """
    none, zero, one = np.float32(np.inf), np.float32(0), np.float32(1)
    tiny = np.float32(1e-30)
    # Slices from 0 let the loops be vectorised.
    x, enter, leave, score = x[first:last], enter[first:last], leave[first:last], score[first:last]
    own, curv = g[first:last], curv[first:last]
    top = -none
    for v in range(len(own)):
        top = fmax(top, own[v] - leave[v])
    for turn in range(20 * len(own)):
        i = 0
        while i < len(own) and own[i] - leave[i] != top:
            i += 1
        if i == len(own) or top == -none:
            return turn > 0
        row, curv_i = C[first + i, first:last], curv[i]
        best, worst = zero, zero
        for v in range(len(own)):
            slope = fmax(top - own[v] - enter[v], zero)
            bend = fmax(curv_i + curv[v] - (row[v] + row[v]), tiny)
            score[v] = slope * slope / bend
            best, worst = fmax(best, score[v]), fmax(worst, slope)
        if worst <= enough or best <= zero:
            return turn > 0
        j = 0
        while score[j] != best:
            j += 1
        bend = fmax(curv_i + curv[j] - (row[j] + row[j]), tiny)
        step = (top - own[j]) / (bend + bend)
        if step >= x[i] and x[i] <= one - x[j]:
            step = x[i]
            x[i] = zero
            x[j] = min(one, x[j] + step)
        elif step >= one - x[j]:
            step = one - x[j]
            x[i] = max(zero, x[i] - step)
            x[j] = one
        else:
            x[i] -= step
            x[j] += step
        for v in (i, j):
            enter[v] = zero if x[v] < one else none
            leave[v] = zero if x[v] > zero else none
        twice = step + step
        row_i, row_j = C[first + i], C[first + j]
        for v in range(len(g)):
            g[v] += twice * (row_j[v] - row_i[v])
        top = -none
        for v in range(len(own)):
            top = fmax(top, own[v] - leave[v])
    return True


@jit
def relax(
    quadratic: Quadratic,
    point: Point,
    group_lanes: Array,
    rounds: int,
    gained: Array,
    with_gradient: bool,
) -> bool:
    """Make up to ``rounds`` rounds from a feasible point; return whether it is solved.

    Parameters
    ----------
    quadratic : Quadratic
    point : Point
        Moved in place; ``s`` and ``g`` are exact on entry and on exit.
    group_lanes : (groups + 1,) int64
        First lane of each group; the last is the number of lanes.
    gained : (1,) float64
        Sum of the decreases so far.
    with_gradient : bool
        Whether to recompute ``g`` from ``s`` after a round; otherwise the caller does.
    """
    x, s, g = point
    size, lanes, groups = len(x), group_lanes[-1], len(group_lanes) - 1
    capacity = min(round_up(size), round_up(4 * min(lanes, 1024 if groups == 1 else 256) + 64))
    none = np.float32(np.inf)
    conditions = new_conditions(size, group_lanes)
    enter, leave = conditions.enter, conditions.leave
    marked = np.zeros(size, np.uint8)
    inside = np.empty(size, np.int64)
    chosen_all = np.empty(capacity, np.int64)
    squares = np.empty(capacity * capacity, np.float32)
    x_w, g_w = np.empty(capacity, np.float32), np.empty(capacity, np.float32)
    enter_w, leave_w = np.empty(capacity, np.float32), np.empty(capacity, np.float32)
    score, curv_w = np.empty(capacity, np.float32), np.empty(capacity, np.float32)
    change = np.empty(capacity, np.float32)
    starts = np.zeros(2, np.int64)
    between = movable_sides(x, conditions, inside)
    for _ in range(rounds):
        lane_extremes(g, conditions)
        worst = group_thresholds(conditions, group_lanes)
        cost = np.float32(0)
        for t in range(between):
            v = inside[t]
            cost += (x[v] - x[v] * x[v]) * quadratic.curv[v]
        if between > 0:
            cost /= between
        if worst <= 0 or optimality_gap(x, g, conditions, group_lanes) <= cost:
            return True
        count = _select(g, conditions, group_lanes, worst, inside[:between], chosen_all, marked)
        starts[1] = count
        if groups > 1:
            starts = sort_by_group(chosen_all[:count], group_lanes)
        width = round_up(count)
        for t in range(count, width):
            chosen_all[t] = chosen_all[0]
        chosen = chosen_all[:width]
        C = squares[: width * width].reshape((width, width))
        gram(quadratic, chosen, C)
        for t in range(width):
            v = chosen[t]
            x_w[t], g_w[t], enter_w[t], leave_w[t] = x[v], g[v], enter[v], leave[v]
            curv_w[t] = C[t, t]
        for t in range(count, width):
            enter_w[t], leave_w[t] = none, none
        for _ in range(_PASSES):
            moved = False
            for part in range(len(starts) - 1):
                # With the padding, whose entries are closed, loops run over whole vectors.
                last = width if groups == 1 else starts[part + 1]
                moved |= _minimise_pairs(
                    C, curv_w, starts[part], last, x_w, g_w[:width], enter_w, leave_w, score,
                    _LEAVE * worst,
                )  # fmt: skip
            if not moved or groups == 1:
                break
        gain, size_of_terms = np.float32(0), np.float32(0)
        between = 0
        for t in range(count):
            v = chosen[t]
            change[t] = x_w[t] - x[v]
            gain -= np.float32(0.5) * change[t] * (g_w[t] + g[v])
            size_of_terms += abs(change[t]) * (abs(g_w[t]) + abs(g[v]))
            x[v], enter[v], leave[v] = x_w[t], enter_w[t], leave_w[t]
        for v in range(size):
            if 0 < x[v] < 1:
                inside[between] = v
                between += 1
        apply_change(quadratic, point, chosen[:count], change)
        if quadratic.factored and with_gradient:
            gradient(quadratic.matrix, quadratic.linear, s, g, 0, size)
        gained[0] += gain
        # Scaled by the share of variables that could move in this round.
        if gain <= _ENOUGH * (gained[0] * capacity / size + size_of_terms):
            return True
    return False
