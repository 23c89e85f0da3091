"""Search from the relaxed optimum: annealing of cores, and a final descent."""

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

#: Size of a walk's first core, which often suffices, of its second, of the others, and of the
#: largest.
_QUICK, _SECOND, _CORE, _LARGEST = 32, 64, 128, 2048
#: Sweeps of a core, trips of the first and of the others. Each level doubles size and sweeps, and
#: halves the trips.
_SWEEPS, _QUICK_TRIPS, _TRIPS = 5, 4, 20
#: Highest level.
_HIGHEST = 7
#: With more groups than this, a level has more cores, so that each group is covered once or twice.
_GROUPS = 32
#: Number of unsuccessful cores in a row that ends a level.
_PATIENCE = 5
#: First temperature of a trip, in units of the mean cost of rounding a variable.
_HOT = 2.0


#: Passes of the final descent, and number of variables of either side.
_THOROUGH, _HASTY = (100, 4096), (1, 256)


#: Largest number of cores of a limited walk, plus one for every four variables.
_MOST = 200


class BestPoint(NamedTuple):
    """Best state so far, by position, with its energy relative to the relaxed optimum."""

    x: Array
    energy: float


def search(relaxed: Relaxation, random: Array, endless: bool) -> Iterator[BestPoint]:
    """Yield the best state so far, after the rounding and after each core.

    A walk starts from the rounded optimum of the relaxation and anneals one core after another:
    first the variables that are most likely to leave their bounds, then random ones, likely ones
    more often (:mod:`solvers.anneal.core_selection`). Cores grow after several without success,
    up to a level at which the walk ends. If ``endless``, walks from other roundings follow, to
    levels 0, 1, 2, 0, 1, 2, …

    Without factors, the relaxation may not be convex and its optimum may be poor: then there is
    one walk, to level 3, or without end.
    """
    state = relaxed.rounded(random)
    best = BestPoint(state.point.x.copy(), state.energy)
    yield best
    factored = relaxed.model.factored
    if relaxed.movable < 2 or (factored and relaxed.solved and relaxed.is_feasible):
        return  # nothing can move, or the state is optimal
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
    """Anneal cores of ``state``, in place, until all levels up to ``top`` have failed."""
    model = relaxed.model
    patience = max(_PATIENCE, len(model.cardinalities) // _GROUPS)
    failed = 0
    # Limits the walk: endless tiny gains are rounding errors.
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
    """Return the range of the first temperature of a core's trips.

    If the relaxation is convex, a swap must be able to cost as much as rounding a variable.
    Otherwise, any temperature up to the spread of the gradient may be needed.
    """
    if model.factored:
        return _HOT * cost, _HOT * cost
    high = float(state.point.g.std()) + 1e-30
    return min(high, max(_HOT * cost, 0.03 * high)), high


def polish_state(model: KernelModel, x: Array, quick: bool = False) -> None:
    """Descend to a swap-local optimum, in place.

    ``quick`` limits it to one pass over the most promising variables.
    """
    lanes = model.layout.group_lanes
    passes, most = _HASTY if quick else _THOROUGH
    polish(model.quadratic, model.allocate(x), lanes, passes, most)
