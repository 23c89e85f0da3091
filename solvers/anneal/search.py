"""From the relaxed optimum to a binary state: core after core, and a last polish."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from solvers.anneal import polish as kernel
from solvers.anneal.core import anneal_core
from solvers.anneal.model import Model
from solvers.anneal.relaxed import Relaxed, State
from solvers.anneal.simd import round_up

Array = npt.NDArray[Any]

#: Size of a walk's first core, of the others, and of the largest.
_FIRST, _CORE, _LARGEST = 64, 128, 2048
#: Sweeps and trips of a core. With each level its size and sweeps double, its trips halve.
_SWEEPS, _TRIPS = 5, 8
#: Levels beyond which sweeps double no more.
_HIGHEST = 7
#: Cores in a row without success that end a level.
_PATIENCE = 6
#: First temperature of a trip, as a share of the gap that rounding left.
_HOT = 0.3


class Found(NamedTuple):
    """The best state so far, by position, and its energy relative to the relaxed optimum."""

    x: Array
    energy: float


def search(relaxed: Relaxed, rng: np.random.Generator, endless: bool) -> Iterator[Found]:
    """Yield the best state so far, after the rounding and after each core.

    A walk starts from the rounded optimum of the relaxation and anneals one core after
    another: first the variables nearest to the threshold, then random ones, near ones more
    often. Cores grow after some without success, up to a level at which the walk ends. If
    ``endless``, walks from other roundings follow, to levels 0, 1, 2, 0, 1, 2, …

    Without factors there is no knowing whether the relaxation is convex, and how good its
    optimum: then there is one walk, to level 3, or without end.
    """
    state = relaxed.rounded()
    best = Found(state.x.copy(), state.energy)
    yield best
    factored = relaxed.model.factored
    movable = int(np.isfinite(relaxed.distance).sum())
    if movable < 2 or (factored and relaxed.solved and relaxed.is_feasible):
        return  # nothing can move, or nothing is better
    gap = state.energy
    for number in count():
        top = number % 3 if factored else None if endless else 3
        for _ in _walk(relaxed, state, movable, number == 0, top, gap, rng):
            if state.energy < best.energy:
                best = Found(state.x.copy(), state.energy)
            yield best
        if not endless:
            return
        state = relaxed.rounded(rng)


def _walk(
    relaxed: Relaxed,
    state: State,
    movable: int,
    first: bool,
    top: int | None,
    gap: float,
    rng: np.random.Generator,
) -> Iterator[None]:
    """Anneal cores of ``state``, in place, until all levels up to ``top`` failed."""
    model = relaxed.model
    seed = rng.integers(1, 2**62, 1)
    failed = 0
    for number in count():
        level = min(failed // _PATIENCE, _HIGHEST)
        if top is not None and level > top:
            return
        size = min((_FIRST if number == 0 else _CORE) << level, _LARGEST, movable)
        score = relaxed.distance
        if not first or number > 1:
            score = score * _spread(model, rng)
        chosen, starts = _by_group(model, np.argpartition(score, size - 1)[:size])
        change = anneal_core(
            model.matrix, model.factored, model.linear, model.curv, state.x, state.s, state.g,
            chosen, starts, _temperature(model, state, gap, rng), _SWEEPS << level,
            max(1, _TRIPS >> level), seed,
        )  # fmt: skip
        failed = level * _PATIENCE if change < 0 else failed + 1
        state.energy += float(change)
        yield


def _temperature(model: Model, state: State, gap: float, rng: np.random.Generator) -> float:
    """Choose the first temperature of a core's trips.

    Where the relaxation is convex, the gap that rounding left is what a core can gain.
    Where it may not be, anything up to the spread of the gradient may be needed.
    """
    if model.factored:
        return _HOT * gap
    high = _HOT * float(state.g.std()) + 1e-30
    low = min(high, max(_HOT * gap, 0.03 * high))
    return float(low * (high / low) ** rng.random())


def polish(model: Model, x: Array) -> None:
    """Bring a state to a swap-local optimum, from fresh fields, in place."""
    s, g = model.buffers()
    model.refresh(x, s, g)
    least = 1e-6 * float(np.abs(g).max())
    kernel.polish(
        model.matrix, model.factored, model.linear, model.curv, x, s, g,
        model.layout.group_lanes, least,
    )  # fmt: skip


def _spread(model: Model, rng: np.random.Generator) -> Array:
    """Draw a random factor for each position, one for each group where there are several."""
    groups = len(model.cardinalities)
    if groups == 1:
        return rng.standard_exponential(model.size, np.float32)
    factors = rng.standard_exponential(groups, np.float32)
    return factors[model.layout.group_of(np.arange(model.size))]


def _by_group(model: Model, chosen: Array) -> tuple[Array, Array]:
    """Sort a core by group and pad it; return it, where its groups begin, and its length."""
    starts = np.array([0, len(chosen)])
    if len(model.cardinalities) > 1:
        group = model.layout.group_of(chosen)
        order = np.argsort(group, kind="stable")
        chosen = chosen[order]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(group[order])) + 1, starts[1:]])
    padding = round_up(len(chosen)) - len(chosen)
    return np.append(chosen, np.full(padding, chosen[0])), starts
