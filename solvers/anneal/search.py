"""From the relaxed optimum to a binary state: core after core, and a last polish."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy.typing as npt

from solvers.anneal.core import search_core
from solvers.anneal.model import KernelModel
from solvers.anneal.polish_kernel import polish
from solvers.anneal.relaxation import BinaryPoint, Relaxation

Array = npt.NDArray[Any]

#: Size of a walk's first core, which most often is enough, of its second, of the others, and of
#: the largest.
_QUICK, _SECOND, _CORE, _LARGEST = 32, 64, 128, 2048
#: Sweeps of a core, trips of the first and of the others. With each level size and sweeps double,
#: trips halve.
_SWEEPS, _QUICK_TRIPS, _TRIPS = 5, 4, 20
#: Levels beyond which sweeps double no more.
_HIGHEST = 7
#: With so many groups and more, as many cores in a row as it takes to see each once or twice.
_GROUPS = 32
#: Cores in a row without success that end a level.
_PATIENCE = 5
#: First temperature of a trip, in units of what rounding a variable costs.
_HOT = 2.0


#: Passes of a polish, and variables of either side that it pairs.
_THOROUGH, _HASTY = (100, 4096), (1, 256)


#: Cores of a walk that has an end, however many succeed; one for every four variables on top.
_MOST = 200


class BestPoint(NamedTuple):
    """The best state so far, by position, and its energy relative to the relaxed optimum."""

    x: Array
    energy: float


def search(relaxed: Relaxation, random: Array, endless: bool) -> Iterator[BestPoint]:
    """Yield the best state so far, after the rounding and after each core.

    A walk starts from the rounded optimum of the relaxation and anneals one core after
    another: first the variables least reluctant to leave their bounds, then random ones, such
    more often (:mod:`solvers.anneal.core_selection`). Cores grow after some without success, up to
    a level at which the walk ends. If ``endless``, walks from other roundings follow, to
    levels 0, 1, 2, 0, 1, 2, …

    Without factors there is no knowing whether the relaxation is convex, and how good its
    optimum: then there is one walk, to level 3, or without end.
    """
    state = relaxed.rounded(random)
    best = BestPoint(state.point.x.copy(), state.energy)
    yield best
    factored = relaxed.model.factored
    if relaxed.movable < 2 or (factored and relaxed.solved and relaxed.is_feasible):
        return  # nothing can move, or nothing is better
    cost = relaxed.rounding_cost
    for number in count():
        top = number % 3 if factored else None if endless else 3
        for _ in _walk(relaxed, state, number == 0, top, cost, random):
            if state.energy < best.energy:
                best = BestPoint(state.point.x.copy(), state.energy)
            yield best
        if not endless:
            return
        state = relaxed.rounded(random, at_random=True)


def _walk(
    relaxed: Relaxation,
    state: BinaryPoint,
    first: bool,
    top: int | None,
    cost: float,
    random: Array,
) -> Iterator[None]:
    """Anneal cores of ``state``, in place, until all levels up to ``top`` failed."""
    model = relaxed.model
    patience = max(_PATIENCE, len(model.cardinalities) // _GROUPS)
    failed = 0
    # What seems a gain for ever is rounding.
    most = _MOST + relaxed.movable // 4
    for number in count() if top is None else range(most):
        level = min(failed // patience, _HIGHEST)
        if top is not None and level > top:
            return
        quick = number == 0
        size = _QUICK if quick else (_SECOND if number == 1 else _CORE) << level
        size = min(size, _LARGEST, relaxed.movable)
        at_random = not first or number > 2
        cool, hot = _temperatures(model, state, cost)
        trips = _QUICK_TRIPS if quick else max(1, _TRIPS >> level)
        change = search_core(
            model.quadratic, state.point, model.layout.group_lanes, relaxed.selection_score, size,
            at_random, cool, hot, _SWEEPS << level, trips, random,
        )  # fmt: skip
        failed = level * patience if change < 0 else failed + (not quick)
        state.energy += float(change)
        yield


def _temperatures(model: KernelModel, state: BinaryPoint, cost: float) -> tuple[float, float]:
    """Choose the range of the first temperature of a core's trips.

    Where the relaxation is convex, what rounding a variable costs is what a swap must be
    allowed to. Where it may not be, anything up to the spread of the gradient may be needed.
    """
    if model.factored:
        return _HOT * cost, _HOT * cost
    high = float(state.point.g.std()) + 1e-30
    return min(high, max(_HOT * cost, 0.03 * high)), high


def polish_state(model: KernelModel, x: Array, in_haste: bool = False) -> None:
    """Bring a state to a swap-local optimum, from fresh fields, in place.

    In haste, only the best of the swaps that promise most are made.
    """
    lanes = model.layout.group_lanes
    passes, most = _HASTY if in_haste else _THOROUGH
    polish(model.quadratic, model.allocate(x), lanes, passes, most)
