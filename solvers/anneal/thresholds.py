"""Optimality conditions of the relaxation: thresholds of the gradient in each group.

At the optimum, variables of a group with a gradient below its threshold are 1, those above are 0,
and those between 0 and 1 are at the threshold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import Real, fmax, fmin, jit

Array = npt.NDArray[Any]


class Conditions(NamedTuple):
    """Terms of the optimality conditions at a point; float32."""

    enter: Array
    """0 where a variable is below 1 and may rise, else infinity; shape (size,)."""
    leave: Array
    """0 where a variable is above 0 and may fall, else infinity; shape (size,)."""
    low: Array
    """Smallest gradient that may rise, in each lane."""
    high: Array
    """Largest gradient that may fall, in each lane."""
    down: Array
    """The least ``low`` of each group."""
    up: Array
    """The greatest ``high`` of each group."""


@jit
def new_conditions(size: int, group_lanes: Array) -> Conditions:
    """Allocate conditions for ``size`` positions; the functions below fill them."""
    lanes, groups = group_lanes[-1], len(group_lanes) - 1
    return Conditions(
        np.empty(size, np.float32), np.empty(size, np.float32),
        np.empty(lanes, np.float32), np.empty(lanes, np.float32),
        np.empty(groups, np.float32), np.empty(groups, np.float32),
    )  # fmt: skip


@jit
def movable_sides(x: Array, conditions: Conditions, inside: Array) -> int:
    """Mark variables that may rise and fall; list those between 0 and 1, return their number."""
    enter, leave = conditions.enter, conditions.leave
    none = np.float32(np.inf)
    between = 0
    for v in range(len(x)):
        enter[v] = 0 if 0 <= x[v] < 1 else none
        leave[v] = 0 if x[v] > 0 else none
        if 0 < x[v] < 1:
            inside[between] = v
            between += 1
    return between


@jit
def lane_extremes(g: Array, conditions: Conditions) -> None:
    """Find the smallest gradient of each lane that may rise, and the largest that may fall."""
    enter, leave, low, high = conditions.enter, conditions.leave, conditions.low, conditions.high
    lanes = len(low)
    none = np.float32(np.inf)
    for lane in range(lanes):
        low[lane] = none
        high[lane] = -none
    for first in range(0, len(g), lanes):
        for lane in range(min(lanes, len(g) - first)):
            v = first + lane
            low[lane] = fmin(low[lane], g[v] + enter[v])
            high[lane] = fmax(high[lane], g[v] - leave[v])


@jit
def find_in_lane(g: Array, closed: Array, lane: int, lanes: int, value: Real) -> int:
    """Find the variable of a lane that is not closed and has a given gradient."""
    v = lane
    while not (g[v] == value and closed[v] == 0):
        v += lanes
    return v


@jit
def group_thresholds(conditions: Conditions, group_lanes: Array) -> Real:
    """Reduce lanes to groups (smallest low, largest high); return the worst violation."""
    low, high, down, up = conditions.low, conditions.high, conditions.down, conditions.up
    worst = np.float32(0)
    for group in range(len(down)):
        smallest, largest = np.float32(np.inf), -np.float32(np.inf)
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            smallest, largest = fmin(smallest, low[lane]), fmax(largest, high[lane])
        down[group], up[group] = smallest, largest
        worst = fmax(worst, largest - smallest)
    return worst


@jit
def optimality_gap(x: Array, g: Array, conditions: Conditions, group_lanes: Array) -> Real:
    """Bound the distance of the relaxed energy from its minimum, if it is convex.

    For any threshold θ of a group and any feasible y, ``g·(x - y) = Σ (g - θ)(x - y)``, which is
    at most the sum of the maxima over each variable. With factors, the energy is convex.
    """
    down, up = conditions.down, conditions.up
    lanes, zero = group_lanes[-1], np.float32(0)
    middle, sums = np.empty(lanes, np.float32), np.zeros(lanes, np.float32)
    for group in range(len(down)):
        movable = down[group] < np.float32(np.inf) and up[group] > -np.float32(np.inf)
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            middle[lane] = np.float32(0.5) * (down[group] + up[group]) if movable else zero
            sums[lane] = zero
    for first in range(0, len(g), lanes):
        for lane in range(min(lanes, len(g) - first)):
            v = first + lane
            above = g[v] - middle[lane]
            sums[lane] += above * x[v] - min(zero, above) if x[v] >= zero else zero
    total = zero
    for group in range(len(down)):
        if down[group] < np.float32(np.inf) and up[group] > -np.float32(np.inf):
            for lane in range(group_lanes[group], group_lanes[group + 1]):
                total += sums[lane]
    return total


@jit
def threshold_distances(x: Array, g: Array, group_lanes: Array, distance: Array) -> tuple[int, int]:
    """Compute the distance of each gradient from its group's threshold.

    Returns the numbers of variables between 0 and 1, and of those that can move.

    The threshold separates the gradients of the ones from those of the zeros as well as possible.
    Variables between 0 and 1 have distance 0, and those that can't move infinity.
    """
    size, lanes, groups = len(x), group_lanes[-1], len(group_lanes) - 1
    none = np.float32(np.inf)
    conditions = new_conditions(size, group_lanes)
    between = movable_sides(x, conditions, np.empty(size, np.int64))
    lane_extremes(g, conditions)
    group_thresholds(conditions, group_lanes)
    down, up = conditions.down, conditions.up
    middle = np.empty(lanes, np.float32)
    for group in range(groups):
        movable = down[group] < none and up[group] > -none
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            middle[lane] = np.float32(0.5) * (down[group] + up[group]) if movable else none
    movable = 0
    for first in range(0, size, lanes):
        for lane in range(min(lanes, size - first)):
            v = first + lane
            if x[v] < 0 or middle[lane] == none:
                distance[v] = none
            else:
                distance[v] = 0 if 0 < x[v] < 1 else abs(g[v] - middle[lane])
                movable += 1
    return between, movable
