"""First phase of the relaxation with factors: sweeps over pairs, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.quadratic import Point, Quadratic, gradient
from solvers.anneal.simd import Real, jit

Array = npt.NDArray[Any]

_BUCKETS = 16
_HUGE = np.finfo(np.float32).max


@jit
def _crossing(high: Array, low: Array, bottom: Real, top: Real) -> Real:
    """Find a threshold with as many ``high`` above it as ``low`` below it."""
    for _ in range(16):
        middle = np.float32(0.5) * (bottom + top)
        balance = 0
        for v in range(len(high)):
            balance += high[v] > middle
        for v in range(len(low)):
            balance -= low[v] < middle
        if balance > 0:
            bottom = middle
        else:
            top = middle
    return np.float32(0.5) * (bottom + top)


@jit
def _worst_first(
    excess: Array, positions: Array, sign: Real, middle: Real, most: Real, ordered: Array
) -> int:
    """Sort variables beyond the threshold by their distance, in buckets; return their number."""
    starts = np.zeros(_BUCKETS + 1, np.int64)
    # Finite, also for subnormal gradients, close to the optimum.
    scale = min(np.float32(_BUCKETS - 0.01) / most, _HUGE)
    for v in range(len(excess)):
        beyond = sign * (excess[v] - middle)
        if beyond > 0:
            starts[_BUCKETS - int(beyond * scale)] += 1
    for bucket in range(_BUCKETS):
        starts[bucket + 1] += starts[bucket]
    for v in range(len(excess)):
        beyond = sign * (excess[v] - middle)
        if beyond > 0:
            bucket = _BUCKETS - 1 - int(beyond * scale)
            ordered[starts[bucket]] = positions[v]
            starts[bucket] += 1
    return starts[_BUCKETS]


@jit
def _pair_step(columns: Array, linear: Array, x: Array, s: Array, i: int, j: int) -> None:
    """Minimise the relaxed energy over moving weight from ``i`` to ``j``, or back."""
    one = np.float32(1)
    column_i, column_j = columns[i], columns[j]
    slope, bend = np.float32(0), np.float32(1e-30)
    for r in range(len(s)):
        difference = column_j[r] - column_i[r]
        slope += difference * s[r]
        bend += difference * difference
    slope = slope + slope + linear[j] - linear[i]
    if slope < 0:
        step = min(-slope / (bend + bend), x[i], one - x[j])
    else:
        step = -min(slope / (bend + bend), x[j], one - x[i])
    if step == 0:
        return
    x[i], x[j] = min(one, max(0, x[i] - step)), min(one, max(0, x[j] + step))
    for r in range(len(s)):
        s[r] += step * (column_j[r] - column_i[r])


@jit
def _sweep(quadratic: Quadratic, point: Point, group_lanes: Array) -> None:
    """Pair variables that should fall with those that should rise, and step on each pair.

    ``g`` must match ``x`` on entry, and is outdated on exit; ``s`` is updated, so that the step
    of each pair is exact.
    """
    columns, linear = quadratic.matrix, quadratic.linear
    x, s, g = point
    size, lanes = len(x), group_lanes[-1]
    high, low = np.empty(size, np.float32), np.empty(size, np.float32)
    at_high, at_low = np.empty(size, np.int64), np.empty(size, np.int64)
    falling, rising = np.empty(size, np.int64), np.empty(size, np.int64)
    for group in range(len(group_lanes) - 1):
        highs, lows = 0, 0
        top, bottom = -np.float32(np.inf), np.float32(np.inf)
        for first in range(0, size, lanes):
            for lane in range(group_lanes[group], group_lanes[group + 1]):
                v = first + lane
                if v >= size:
                    break
                if x[v] > 0:
                    high[highs], at_high[highs] = g[v], v
                    top = max(top, g[v])
                    highs += 1
                if 0 <= x[v] < 1:
                    low[lows], at_low[lows] = g[v], v
                    bottom = min(bottom, g[v])
                    lows += 1
        if not bottom < top:
            continue
        middle = _crossing(high[:highs], low[:lows], bottom, top)
        if not bottom < middle < top:
            continue
        plus, minus = np.float32(1), np.float32(-1)
        count = min(
            _worst_first(high[:highs], at_high, plus, middle, top - middle, falling),
            _worst_first(low[:lows], at_low, minus, middle, middle - bottom, rising),
        )
        for t in range(count):
            if falling[t] != rising[t]:
                _pair_step(columns, linear, x, s, falling[t], rising[t])


@jit
def sweeps(
    quadratic: Quadratic, point: Point, group_lanes: Array, times: int, with_gradient: bool
) -> None:
    """Make several sweeps; for ``with_gradient`` see :func:`.relaxation_kernel.relax`."""
    for _ in range(times):
        _sweep(quadratic, point, group_lanes)
        if with_gradient:
            gradient(quadratic.matrix, quadratic.linear, point.s, point.g, 0, len(point.x))
