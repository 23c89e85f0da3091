"""The tree over a core: its arrays, and the calls that work on them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.exact import tree
from solvers.exact.node import FREE
from solvers.exact.root import Core

#: Memory that the open nodes may take, in bytes, and their number at the most.
_MEMORY = 1 << 28
_SLOTS = 1 << 18


class TreeSearch:
    """Branch and bound on a core, resumable after any number of nodes.

    Parameters
    ----------
    core : Core
    start : ndarray, shape (core variables,)
        Where the relaxation of the first node starts.
    bound, incumbent : float
        Lower bound on the core, and the energy to improve on.
    accuracy, slack, tolerance : float
        See :func:`solvers.exact.tree.explore`.
    """

    def __init__(
        self,
        core: Core,
        start: npt.NDArray[np.float64],
        bound: float,
        incumbent: float,
        accuracy: float,
        slack: float,
        tolerance: float,
    ) -> None:
        n = len(core.index)
        slots = max(2 * n + 64, min(_SLOTS, _MEMORY // (9 * n + 32)))
        self.core = core
        self.status = np.empty((slots, n), dtype=np.int8)
        self.points = np.empty((slots, n))
        self.bounds = np.empty(slots)
        self.free = np.empty(slots, dtype=np.int64)
        self.heap = np.arange(slots)
        self.best = np.zeros(n, dtype=np.uint8)
        self.incumbent = np.array([incumbent])
        self.counters = np.zeros(3, dtype=np.int64)
        self.margins = (accuracy, slack, tolerance)
        if core.feasible:
            self.status[0], self.points[0] = FREE, start
            self.bounds[0], self.free[0] = bound, n
            self.counters[tree.OPEN] = 1

    def explore(self, limit: int) -> None:
        """Process up to ``limit`` nodes."""
        core = self.core
        tree.explore(
            core.P, core.linear, core.constant, core.group, core.k,
            self.status, self.points, self.bounds, self.free, self.heap,
            self.best, self.incumbent, self.counters, *self.margins, limit,
        )  # fmt: skip

    @property
    def open(self) -> int:
        """Number of open nodes; none are left when the tree is exhausted."""
        return int(self.counters[tree.OPEN])

    @property
    def nodes(self) -> int:
        """Number of nodes processed."""
        return int(self.counters[tree.NODES])

    @property
    def found(self) -> int:
        """Number of incumbents found."""
        return int(self.counters[tree.FOUND])

    @property
    def bound(self) -> float:
        """Least bound of the open nodes; infinity without one."""
        return float(self.bounds[self.heap[0]]) if self.open else np.inf
