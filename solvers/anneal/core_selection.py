"""Selection of the variables of a core, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.layout import lane_groups
from solvers.anneal.rng import exponential
from solvers.anneal.simd import Real, jit, round_up

Array = npt.NDArray[Any]


#: Number of variables, in addition to those between 0 and 1, that the scores are normalised by.
_PROMISING = 64

#: Smallest score in a random selection: if more variables are between 0 and 1 than a core holds,
#: different ones are selected each time.
_FLOOR = np.float32(0.02)


@jit
def selection_score(distance: Array, curv: Array, fractional: int) -> Array:
    """Score variables by how unlikely they are to leave their bound; 0 if between 0 and 1.

    Rounding leaves an error ``δ`` in ``Ax``. A flip changes the energy by ``distance + curv``,
    plus or minus ``2|a·δ|``: it can decrease it if the distance is small relative to the root of
    the column's length, or if both are small, as for weights without effect that only fill the
    cardinality. The score is the smaller of two, each divided by the value that
    :data:`_PROMISING` variables are below.
    """
    none, zero = np.float32(np.inf), np.float32(0)
    gain, cost = np.full(len(distance), none, np.float32), np.full(len(distance), none, np.float32)
    within = 0
    for v in range(len(distance)):
        if distance[v] < none:
            within += 1
            cost[v] = distance[v] + curv[v] if distance[v] > zero else zero
            if distance[v] == zero:
                gain[v] = zero
            elif curv[v] > zero:
                gain[v] = distance[v] / np.sqrt(np.sqrt(curv[v]))
    size = min(fractional + _PROMISING, within)
    tiny = np.float32(1e-30)
    one, two = np.float32(1), np.float32(1)
    if size > 0:
        one /= max(kth_bracket(gain, size)[1], tiny)
        two /= max(kth_bracket(cost, size)[1], tiny)
    for v in range(len(distance)):
        gain[v] = min(gain[v] * one, cost[v] * two)
    return gain


@jit
def select_core(
    score: Array, group_lanes: Array, size: int, at_random: bool, state: Array
) -> tuple[Array, Array]:
    """Select the variables with the lowest scores, or random ones with a preference for them.

    If groups are small, whole groups are preferred at random.

    Parameters
    ----------
    score : (positions,) float32
        See :func:`selection_score`; infinite for variables that can't move.
    size : int
        Number of variables, at most as many as can move.

    Returns
    -------
    chosen : ndarray of int64
        Positions sorted by group, padded with the first to a multiple of 8.
    starts : ndarray of int64
        Start of each group that occurs, and ``size``.
    """
    lanes, groups = group_lanes[-1], len(group_lanes) - 1
    if at_random:
        score = score.copy()
        together = 4 * len(score) < groups * size
        factor = np.empty(lanes, np.float32)
        for group in range(groups):
            factor[group_lanes[group] : group_lanes[group + 1]] = exponential(state)
        for v in range(len(score)):
            score[v] = max(score[v], _FLOOR)
            score[v] *= factor[v % lanes] if together else exponential(state)
    chosen = np.empty(round_up(size), np.int64)
    select_smallest(score, chosen[:size])
    starts = np.array([0, size])
    if groups > 1:
        starts = sort_by_group(chosen[:size], group_lanes)
    chosen[size:] = chosen[0]
    return chosen, starts


@jit
def kth_bracket(score: Array, size: int) -> tuple[Real, Real]:
    """Find two adjacent floats around the ``size``-th smallest score.

    Fewer than ``size`` scores are at most the first, and enough are at most the second. Scores
    are not negative, and the bits of non-negative floats are ordered like their values.
    """
    bits = score.view(np.int32)
    top = np.float32(0)
    for v in range(len(score)):
        top = max(top, score[v] if score[v] < np.float32(np.inf) else top)
    found = np.array([0, top], np.float32)
    ends = found.view(np.int32)
    below, enough = -1, int(ends[1])
    while enough - below > 1:
        middle, count = (below + enough) // 2, 0
        for v in range(len(bits)):
            count += bits[v] <= middle
        if count < size:
            below = middle
        else:
            enough = middle
    ends[0], ends[1] = max(below, 0), enough
    return found[0] if below >= 0 else np.float32(-1), found[1]


@jit
def select_smallest(score: Array, chosen: Array) -> None:
    """List the variables with the smallest scores, as many as ``chosen`` has entries."""
    below, enough = kth_bracket(score, len(chosen))
    count = 0
    for v in range(len(score)):
        if score[v] <= below:
            chosen[count] = v
            count += 1
    for v in range(len(score)):
        if count == len(chosen):
            break
        if below < score[v] <= enough:
            chosen[count] = v
            count += 1


@jit
def sort_by_group(chosen: Array, group_lanes: Array) -> Array:
    """Sort positions by group, in place; return the starts of those that occur, and the end."""
    group_of, lanes = lane_groups(group_lanes), group_lanes[-1]
    ends = np.zeros(len(group_lanes), np.int64)
    for v in chosen:
        ends[group_of[v % lanes] + 1] += 1
    found = 1 + np.count_nonzero(ends)
    starts, count = np.empty(found, np.int64), 0
    for group in range(len(ends) - 1):
        if ends[group + 1] > 0:
            starts[count] = ends[group]
            count += 1
        ends[group + 1] += ends[group]
    starts[count] = len(chosen)
    unsorted = chosen.copy()
    for v in unsorted:
        group = group_of[v % lanes]
        chosen[ends[group]] = v
        ends[group] += 1
    return starts
