"""Rounding of the relaxed optimum to a binary state, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.layout import lane_groups
from solvers.anneal.quadratic import Point, Quadratic, add_column, add_row
from solvers.anneal.rng import exponential
from solvers.anneal.simd import Real, jit

Array = npt.NDArray[Any]


@jit
def round_off(
    quadratic: Quadratic, point: Point, group_lanes: Array, at_random: bool, state: Array
) -> Real:
    """Round the variables between 0 and 1 in each group: the largest up, or at random.

    At random, larger ones are rounded up more often. Updates ``s``, or ``g`` without factors;
    returns the increase of the energy.
    """
    matrix, factored, _, curv = quadratic
    x, s, g = point
    inside = np.flatnonzero((x > 0) & (x < 1))
    key, group_of = np.empty(len(inside), np.float32), lane_groups(group_lanes)
    up, step = np.zeros(len(group_lanes) - 1), np.empty(len(inside), np.float32)
    for t in range(len(inside)):
        value = x[inside[t]]
        key[t] = exponential(state) / value if at_random else -value
        up[group_of[inside[t] % group_lanes[-1]]] += value
    for t in np.argsort(key):
        v = inside[t]
        group = group_of[v % group_lanes[-1]]
        goes_up = up[group] >= 0.5
        up[group] -= goes_up
        step[t] = np.float32(goes_up) - x[v]
        x[v] = np.float32(goes_up)
    rise = 0.0
    if factored:
        shift = np.zeros(len(s), np.float32)
        for t in range(len(inside)):
            rise += step[t] * g[inside[t]]
            add_column(matrix[inside[t]], shift, step[t])
        for r in range(len(s)):
            s[r] += shift[r]
            rise += shift[r] * shift[r]
    else:
        for t in range(len(inside)):
            v = inside[t]
            rise += step[t] * (g[v] + step[t] * curv[v])
            add_row(matrix, curv, g, v, step[t])
    return rise
