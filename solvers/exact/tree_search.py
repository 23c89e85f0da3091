"""Branch and bound on a core: arrays of the tree, and calls of its kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.exact import tree
from solvers.exact.node import FREE
from solvers.exact.root import Core

#: Largest memory of the open nodes in bytes, and their largest number.
_MEMORY = 1 << 28
_SLOTS = 1 << 18


class TreeSearch:
    """Branch and bound on a core, resumable after any number of nodes.

    Parameters
    ----------
    core : Core
    start : ndarray, shape (core variables,)
        Start of the relaxation of the first node.
    bound, incumbent : float
        Lower bound on the core, and the energy to improve on.
    margins : Margins
    """

    def __init__(
        self,
        core: Core,
        start: npt.NDArray[np.float64],
        bound: float,
        incumbent: float,
        margins: tree.Margins,
    ) -> None:
        n = len(core.index)
        slots = max(2 * n + 64, min(_SLOTS, _MEMORY // (9 * n + 32)))
        self.core, self.margins = core, margins
        self.pool = tree.Nodes(
            status=np.empty((slots, n), dtype=np.int8),
            points=np.empty((slots, n)),
            bounds=np.empty(slots),
            free=np.empty(slots, dtype=np.int64),
            heap=np.arange(slots),
        )
        self.incumbent = tree.Incumbent(np.zeros(n, dtype=np.uint8), np.array([incumbent]))
        self.counters = np.zeros(3, dtype=np.int64)
        if core.feasible:
            self.pool.status[0], self.pool.points[0] = FREE, start
            self.pool.bounds[0], self.pool.free[0] = bound, n
            self.counters[tree.OPEN] = 1

    def explore(self, limit: int) -> None:
        """Process up to ``limit`` nodes."""
        core = self.core
        tree.explore(
            core.problem, core.constant, self.pool, self.incumbent, self.counters, self.margins,
            limit,
        )  # fmt: skip

    @property
    def best(self) -> npt.NDArray[np.uint8]:
        """The best state known."""
        return self.incumbent.x

    @property
    def open(self) -> int:
        """Number of open nodes; 0 when the tree is exhausted."""
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
        """Smallest bound of the open nodes; infinity without any."""
        return float(self.pool.bounds[self.pool.heap[0]]) if self.open else np.inf
