"""Search on a dense matrix: arrays of one search, and the loop around the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal import tabu as kernel
from solvers.anneal.layout import Layout
from solvers.base import Request
from solvers.solution import Stop

Array = npt.NDArray[Any]

#: Swaps between looks at the clock and at the callback.
_CHUNK = 500
#: Swaps after which the fields are recomputed: a refresh costs about k/2 swaps.
_REFRESH = 20_000


@dataclass
class DenseSearch:
    """One resumable tabu search; energies are relative to its first state."""

    Q: Array
    """Symmetric, C-contiguous, float32 or float64, in the layout's order."""
    layout: Layout
    x: Array
    """Current state, uint8, in the layout's order."""
    seed: int
    tenure: int
    f: Array = field(init=False)
    best: Array = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.x)
        self.f = np.empty(n, self.Q.dtype)
        self.best = self.x.copy()
        self.side = np.where(self.x == 1, -1, 1).astype(np.float32)
        self.ring = np.full(kernel.RING, -1)
        self.chain = np.full(n, -1)
        self.ints = np.zeros(5, np.int64)
        self.ints[kernel.RNG] = self.seed + 1
        self.floats = np.zeros(2)
        kernel.refresh(self.Q, self.x, self.f)

    def search(self, patience: int, request: Request) -> Stop:
        """Swap until patience is out, or for as long as a time limit allows."""
        limited = request.time_limit is not None
        known = np.inf
        done = 0
        while True:
            made = kernel.tabu(
                self.Q, self.x, self.f, self.best, self.side,
                self.layout.starts, self.layout.group_starts,
                self.ring, self.chain, self.ints, self.floats,
                self.tenure, _CHUNK, patience,
            )  # fmt: skip
            done += made
            if self.floats[kernel.BEST] < known:
                known = float(self.floats[kernel.BEST])
                if request.callback is not None and request.report(known):
                    return Stop.INTERRUPTED
            if limited and request.remaining <= 0:
                return Stop.TIME_LIMIT
            if made < _CHUNK:
                if not limited:
                    return Stop.CONVERGED
                self.ints[kernel.STALL] = 0
            if done >= _REFRESH:
                done = 0
                kernel.refresh(self.Q, self.x, self.f)

    def polish(self) -> Array:
        """Return the best state, brought to a swap-local optimum with fresh fields."""
        x = self.best.copy()
        kernel.refresh(self.Q, x, self.f)
        kernel.descend(self.Q, x, self.f, self.layout.group_of)
        return x
