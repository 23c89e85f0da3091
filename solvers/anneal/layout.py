"""Layout of variables in lanes, each inside one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import jit

Array = npt.NDArray[Any]

#: Value of a position without a variable.
EMPTY = -1.0

#: Longest lane with several groups; largest number of lanes with one group.
_LONGEST, _MOST_LANES = 32, 1024


@dataclass(frozen=True)
class LaneLayout:
    """Positions of the variables, ``row · lanes + lane``; the variables of a lane are in one group.

    One pass over the rows then finds the best variable of every lane, in vector arithmetic.
    With one group the positions are the variables; with several they are permuted, and
    lanes too long for their group end in empty positions.
    """

    size: int
    """Number of positions."""
    lanes: int
    order: Array | None
    """Variable at each position, -1 if empty; None if positions are the variables."""
    group_lanes: Array
    """First lane of each group, then their number: int64, shape (groups + 1,)."""

    @classmethod
    def of(cls, groups: Array, num_groups: int) -> LaneLayout:
        """Lay out variables by their group labels (int, shape (n,))."""
        n = len(groups)
        if num_groups == 1:
            lanes = min(_MOST_LANES, 1 << max(5, round(np.log2(max(n, 2)) / 2)))
            return cls(n, lanes, None, np.array([0, lanes]))
        rows = int(np.clip(min(n // num_groups, n // 32), 1, _LONGEST))
        sizes = np.bincount(groups, minlength=num_groups)
        pieces = -(-sizes // rows)
        group_lanes = np.concatenate([[0], np.cumsum(pieces)])
        lanes = int(group_lanes[-1])
        by_group = np.argsort(groups, kind="stable")
        rank = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        lane = np.repeat(group_lanes[:-1], sizes) + rank // rows
        order = np.full(rows * lanes, -1)
        order[rank % rows * lanes + lane] = by_group
        return cls(rows * lanes, lanes, order, group_lanes)

    def arrange(self, values: Array, empty: float = 0.0) -> Array:
        """Reorder values by variable (last axis) to positions, with ``empty`` at empty ones."""
        if self.order is None:
            return values
        arranged = np.take(values, self.order, axis=-1)
        arranged[..., self.order < 0] = empty
        return arranged

    def restore(self, state: Array) -> Array:
        """Return a state by position, 0/1 or :data:`EMPTY`, as uint8 by variable."""
        if self.order is None:
            return state.astype(np.uint8)
        real = self.order >= 0
        restored = np.empty(int(real.sum()), np.uint8)
        restored[self.order[real]] = state[real]
        return restored

    def group_of(self, positions: Array) -> Array:
        """Return the group of each position."""
        return lane_groups(self.group_lanes)[positions % self.lanes]


@jit
def lane_groups(group_lanes: Array) -> Array:
    """Return the group of each lane."""
    group_of = np.empty(group_lanes[-1], np.int64)
    for group in range(len(group_lanes) - 1):
        group_of[group_lanes[group] : group_lanes[group + 1]] = group
    return group_of
