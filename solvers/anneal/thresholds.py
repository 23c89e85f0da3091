"""Thresholds: what gradient separates a group's ones from its zeros, and who is on the wrong side.

At the optimum of the relaxation every gradient of a group below its threshold belongs to a
one, every one above to a zero, and the variables between 0 and 1 are at it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import Real, fmax, fmin, jit

Array = npt.NDArray[Any]


@jit
def movable_sides(x: Array, enter: Array, leave: Array, inside: Array) -> int:
    """Mark what may rise and fall; list the variables between 0 and 1, return how many."""
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
def lane_extremes(g: Array, enter: Array, leave: Array, low: Array, high: Array) -> None:
    """Find the smallest gradient that may rise (low) and the largest that may fall (high).

    ``enter`` and ``leave`` are 0 where a variable is below 1 and above 0, else infinity;
    ``low`` and ``high`` have one entry a lane.
    """
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
    """Find the variable of a lane that is not closed and has the gradient wanted."""
    v = lane
    while not (g[v] == value and closed[v] == 0):
        v += lanes
    return v


@jit
def group_thresholds(low: Array, high: Array, group_lanes: Array, down: Array, up: Array) -> Real:
    """Reduce lanes to groups (smallest low, largest high); return the worst violation."""
    worst = np.float32(0)
    for group in range(len(down)):
        smallest, largest = np.float32(np.inf), -np.float32(np.inf)
        for lane in range(group_lanes[group], group_lanes[group + 1]):
            smallest, largest = fmin(smallest, low[lane]), fmax(largest, high[lane])
        down[group], up[group] = smallest, largest
        worst = fmax(worst, largest - smallest)
    return worst


@jit
def optimality_gap(x: Array, g: Array, group_lanes: Array, down: Array, up: Array) -> Real:
    """Bound how far the relaxed energy is above its minimum.

    That holds where it is convex, as it is with factors. For any threshold θ of a group,
    and any feasible y, ``g·(x - y) = Σ (g - θ)(x - y)``, which is at most what each variable
    alone could bring.
    """
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
    """Measure how far each gradient lies from its group's threshold.

    Returns how many variables are between 0 and 1, and how many can move.

    The threshold separates the gradients of the ones from those of the zeros, as well as
    it goes; variables between 0 and 1 are at distance 0, and those that no pair of their
    group can move at infinity.
    """
    size, lanes, groups = len(x), group_lanes[-1], len(group_lanes) - 1
    none = np.float32(np.inf)
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    down, up = np.empty(groups, np.float32), np.empty(groups, np.float32)
    enter, leave = np.empty(size, np.float32), np.empty(size, np.float32)
    between = movable_sides(x, enter, leave, np.empty(size, np.int64))
    lane_extremes(g, enter, leave, low, high)
    group_thresholds(low, high, group_lanes, down, up)
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
