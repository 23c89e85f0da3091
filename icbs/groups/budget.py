"""The budget of a run of groups: its target, the first state within it, and limits of blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icbs.errors import LayerError
from icbs.groups.costs import Costs
from icbs.groups.grouping import Grouping, State
from icbs.model.limits import Limits, reopened

Float = npt.NDArray[np.float64]


@dataclass(eq=False)
class Budget:
    """Largest cost that the kept groups of a model may have.

    Parameters
    ----------
    grouping : Grouping
    costs : Costs
    quantity : str
        ``macs``, ``parameters`` or ``latency``.
    share : float
        Share of the dense model's cost.

    Raises
    ------
    LayerError
        If the model costs more even with the least number of groups of every set.
    """

    grouping: Grouping
    costs: Costs
    quantity: str
    share: float

    def __post_init__(self) -> None:
        grouping = self.grouping
        nothing = np.zeros(grouping.count, dtype=np.uint8)
        self.dense = self.costs.total(nothing)
        self.target = self.share * self.dense
        least = nothing.copy()
        for own, span in zip(grouping.sets, grouping.spans, strict=True):
            least[span.start + own.floor : span.stop] = 1
        lowest = self.costs.total(least)
        if lowest > self.target:
            raise LayerError(
                f"budget {self.quantity}={self.share:g} can't be reached: with one group of each "
                f"dimension the model still has {lowest / self.dense:.3f} of its {self.quantity}; "
                "raise it, or prune more kinds of groups"
            )

    def share_of(self, state: State) -> float:
        """Return the cost of a state as a share of the dense model's."""
        return self.costs.total(state) / self.dense

    def holds(self, state: State) -> bool:
        """Whether the cost of a state is within the budget, up to rounding."""
        return self.costs.total(state) <= self.target * (1 + 1e-9)

    def best_state(self, scores: Float) -> State:
        """Prune the groups with the lowest score for their cost until the budget holds.

        Groups that then fit into the budget return, the best first.
        """
        grouping = self.grouping
        state = np.zeros(grouping.count, dtype=np.uint8)
        slopes = self.costs.slopes(state)
        # Groups that save nothing go last.
        ratio = np.where(slopes > 0, scores / np.where(slopes > 0, slopes, 1.0), np.inf)
        order = [int(i) for i in np.argsort(ratio, kind="stable") if slopes[i] > 0]
        room = [own.count - own.floor for own in grouping.sets]
        allowed = []
        for number in order:
            own = int(grouping.set_of[number])
            if room[own] > 0:
                room[own] -= 1
                allowed.append(number)
        low, high = 0, len(allowed)  # the cost decreases with the number of pruned groups
        while low < high:
            middle = (low + high) // 2
            state[:] = 0
            state[allowed[:middle]] = 1
            if self.holds(state):
                high = middle
            else:
                low = middle + 1
        state[:] = 0
        state[allowed[:low]] = 1
        best_first = np.array(allowed[:low][::-1], dtype=np.int64)
        return reopened(state, best_first, slopes, grouping.set_of, self.holds)

    def limits(self, state: State, numbers: npt.NDArray[np.int64]) -> Limits:
        """Return the limits of a block of some groups at a state.

        At a state that exceeds the budget, such as the dense one, the block must save the excess.
        """
        grouping = self.grouping
        slopes = self.costs.slopes(state)[numbers]
        slack = self.target - self.costs.total(state)
        if self.holds(state):
            slack = max(0.0, slack)  # within rounding of the target, the state stays feasible
        start = state[numbers]
        saved = float(slopes @ start) - slack
        outside = state == 0
        outside[numbers] = False
        kept_outside = np.bincount(grouping.set_of[outside], minlength=len(grouping.sets))
        inside = np.bincount(grouping.set_of[numbers], minlength=len(grouping.sets))
        floors = np.array([own.floor for own in grouping.sets])
        most = inside - np.maximum(0, floors - kept_outside)
        rest = state.copy()

        def holds(x: State) -> bool:
            whole = rest.copy()
            whole[numbers] = x
            return self.holds(whole)

        return Limits(slopes, max(0.0, saved), grouping.set_of[numbers], most, holds)
