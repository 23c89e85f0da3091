"""A budget on the gates of a block: the saving that its states must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO

Float = npt.NDArray[np.float64]
State = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Limits:
    """``Σ c_i x_i ≥ B`` over the closed gates, and a largest number of closed gates per set.

    The true cost of a model is bilinear where both sides of a layer are pruned; ``costs`` are
    its slopes at the current state.
    """

    costs: Float
    """Saving of each gate when it is closed, shape (n,)."""
    budget: float
    sets: npt.NDArray[np.int64]
    """Set of each gate, shape (n,)."""
    most: npt.NDArray[np.int64]
    """Largest number of closed gates of each set."""
    holds: Callable[[State], bool]
    """Whether the true cost of a state is within the budget."""

    def allows(self, x: State) -> bool:
        """Whether a state is binary, leaves enough gates of each set, and is within the budget."""
        binary = x.shape == self.costs.shape and bool(((x == 0) | (x == 1)).all())
        return binary and self._counts_hold(x) and self.holds(x)

    def repaired(self, x: State, problem: BudgetQUBO) -> State:
        """Close further gates, those that raise the energy least for their saving, until it holds.

        States that hold are unchanged.
        """
        x = x.copy()
        while not self.holds(x):
            counts = np.bincount(self.sets[x == 1], minlength=len(self.most))
            able = (x == 0) & (counts < self.most)[self.sets] & (self.costs > 0)
            if not able.any():
                break
            change = np.asarray(problem.fields(x), dtype=np.float64)
            ratio = np.where(able, change / np.where(self.costs > 0, self.costs, 1.0), np.inf)
            x[int(ratio.argmin())] = 1
        return x

    def filled(self, x: State, problem: BudgetQUBO) -> State:
        """Open closed gates, those that raise the energy least for their cost, while it holds.

        A model of the loss may predict gains from closing more gates than the budget asks for. In
        the state returned no closed gate can be opened within the budget, apart from those that
        cost nothing.
        """
        change = -np.asarray(problem.fields(x), dtype=np.float64)
        ratio = change / np.where(self.costs > 0, self.costs, 1.0)
        return reopened(x, np.argsort(ratio, kind="stable"), self.costs, self.sets, self.holds)

    def _counts_hold(self, x: State) -> bool:
        counts = np.bincount(self.sets[x == 1], minlength=len(self.most))
        return bool((counts <= self.most).all())


def reopened(
    x: State,
    order: npt.NDArray[np.int64],
    costs: Float,
    sets: npt.NDArray[np.int64],
    holds: Callable[[State], bool],
) -> State:
    """Open closed gates in an order, each if the state then still holds the budget.

    Parameters
    ----------
    x : array of uint8, shape (n,)
        1 = closed.
    order : array of int
        Gates to try; those that are open or cost nothing are skipped.
    costs, sets : array, shape (n,)
        Cost and set of each gate. Where a gate does not fit, no other of its set that costs as
        much is tried.
    holds : callable
        Whether a state is within the budget.
    """
    x = x.copy()
    unfit: dict[int, float] = {}
    for gate in order[(x[order] == 1) & (costs[order] > 0)]:
        own = int(sets[gate])
        if costs[gate] >= unfit.get(own, np.inf):
            continue
        x[gate] = 0
        if not holds(x):
            x[gate] = 1
            unfit[own] = float(costs[gate])
    return x
