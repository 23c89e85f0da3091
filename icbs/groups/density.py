"""Numbers of kept groups: the density, the floors, and the best groups within them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from icbs.config import PrunerConfig
from icbs.errors import LayerError
from icbs.groups.grouping import Grouping, Pool, State

Float = npt.NDArray[np.float64]


def best_state(grouping: Grouping, scores: Float, config: PrunerConfig) -> State:
    """Keep the groups with the best scores of each pool, and at least the floor of each set.

    Ties are broken by the order of the groups. Under a budget: the groups with the best score for
    their cost.
    """
    if grouping.budget is not None:
        return grouping.budget.best_state(scores)
    state = np.ones(grouping.count, dtype=np.uint8)
    state[protected(grouping, scores)] = 0
    for pool in grouping.pools:
        keep = number_kept(pool, config)
        open_ = pool.members[state[pool.members] == 1]
        order = np.argsort(-scores[open_], kind="stable")
        more = keep - (len(pool.members) - len(open_))
        state[open_[order[:more]]] = 0
    return state


def keep_floors(grouping: Grouping, state: State, scores: Float) -> State:
    """Exchange groups so that each set keeps at least its floor; others are unchanged.

    The best groups of a set below its floor return, and the worst of the same pool that are not
    needed for a floor are pruned instead.
    """
    state = state.copy()
    for pool in grouping.pools:
        for own, span in zip(grouping.sets, grouping.spans, strict=True):
            inside = grouping.pool_of[span.start] == grouping.pool_of[pool.members[0]]
            short = own.floor - int((state[span] == 0).sum()) if inside else 0
            if short <= 0:
                continue
            closed = span.start + np.flatnonzero(state[span])
            state[closed[np.argsort(-scores[closed], kind="stable")[:short]]] = 0
            for _ in range(short if grouping.budget is None else 0):
                state[_least_needed(grouping, pool, state, scores)] = 1
    return state


def _least_needed(grouping: Grouping, pool: Pool, state: State, scores: Float) -> int:
    """Return the kept group of a pool with the lowest score, of a set above its floor."""
    floors = np.array([own.floor for own in grouping.sets])
    kept = np.bincount(grouping.set_of[state == 0], minlength=len(floors))
    spare = (kept > floors)[grouping.set_of[pool.members]] & (state[pool.members] == 0)
    members = pool.members[spare]
    return int(members[np.argmin(scores[members])])


def number_kept(pool: Pool, config: PrunerConfig) -> int:
    """Return how many groups of a pool are kept: density times size, rounded, or the floor."""
    size = len(pool.members)
    return min(size, max(pool.floor, round(config.density * size)))


def free_sizes(grouping: Grouping, config: PrunerConfig) -> list[tuple[int, int]]:
    """Return the numbers of groups of each pool that may move, and how many of them are pruned.

    The best groups of each set, as many as its floor, don't move in pools of several sets.
    """
    found = []
    for pool in grouping.pools:
        pruned = len(pool.members) - number_kept(pool, config)
        found.append((len(pool.members) - (pool.floor if pool.sets > 1 else 0), pruned))
    return found


def protected(grouping: Grouping, scores: Float) -> npt.NDArray[np.int64]:
    """Return the groups with the best scores of each set, as many as its floor."""
    found = []
    for own, span in zip(grouping.sets, grouping.spans, strict=True):
        order = np.argsort(-scores[span], kind="stable")[: own.floor]
        found.append(span.start + order)
    return np.concatenate(found)


def check_density(grouping: Grouping, config: PrunerConfig) -> None:
    """Refuse a density that prunes no group, or that the floors don't allow.

    Raises
    ------
    LayerError
        Naming the density that is possible.
    """
    kept = sum(number_kept(pool, config) for pool in grouping.pools)
    floor = sum(pool.floor for pool in grouping.pools)
    if kept == grouping.count:
        raise LayerError(
            f"density {config.density:g} prunes none of the {grouping.count} groups; lower it, or "
            "use allocation='global'"
        )
    short = [p for p in grouping.pools if round(config.density * len(p.members)) < p.floor]
    if len(short) == len(grouping.pools):
        raise LayerError(
            f"density {config.density:g} keeps fewer than one group of every dimension, and each "
            f"keeps at least one: choose {floor / grouping.count:.3g} or more"
        )
