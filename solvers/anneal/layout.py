"""How a search sees its variables: sorted by group, cut into segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """Order of the variables in a search, and the runs that it is scanned by."""

    order: Array | None
    """Position → variable, shape (n,); None where variables are sorted by group already."""
    group_of: Array
    """Group of each position, int32, shape (n,), non-decreasing."""
    starts: Array
    """First position of each segment, then n: int64, shape (segments + 1,)."""
    group_starts: Array
    """First segment of each group, then their number: int64, shape (groups + 1,)."""

    @classmethod
    def of(cls, groups: Array, num_groups: int) -> Layout:
        """Lay out variables by their group labels (int, shape (n,))."""
        order = None
        if num_groups > 1 and (groups[1:] < groups[:-1]).any():
            order = np.argsort(groups, kind="stable")
            groups = groups[order]
        length = segment_length(len(groups), num_groups)
        sizes = np.bincount(groups, minlength=num_groups)
        pieces = -(-sizes // length)
        group_starts = np.concatenate([[0], np.cumsum(pieces)])
        first = np.repeat(np.cumsum(sizes) - sizes, pieces)
        rank = np.arange(group_starts[-1]) - np.repeat(group_starts[:-1], pieces)
        starts = np.append(first + rank * length, len(groups))
        return cls(order, groups.astype(np.int32), starts, group_starts)

    def arrange(self, values: Array) -> Array:
        """Bring the last axis of values by variable into the order of positions."""
        return values if self.order is None else values[..., self.order]

    def restore(self, states: Array) -> Array:
        """Undo :meth:`arrange`."""
        if self.order is None:
            return states
        restored = np.empty_like(states)
        restored[..., self.order] = states
        return restored


def segment_length(n: int, num_groups: int) -> int:
    """Choose segments short enough for a good choice of candidates, long enough for SIMD."""
    per_group = n // num_groups
    return int(np.clip(per_group // 32 // 16 * 16, 4, 64))
