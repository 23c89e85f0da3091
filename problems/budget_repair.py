"""Greedy repair of states that miss a budget or the counts of their groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from problems.budget import BudgetQUBO

Vector = npt.NDArray[np.float64]
State = npt.NDArray[np.uint8]


def repair(problem: BudgetQUBO, states: Any) -> State:
    """Make states feasible by greedy flips and exchanges.

    First, in each group with too many ones, the variable with the highest local field is cleared;
    in one with too few, the variable with the lowest field is set. Then, until the budget is
    saved, the flip or the exchange within a group that raises the energy least per saved unit is
    made. Every step saves more, and without a step left the saving is the largest one possible,
    so that the repair always succeeds.

    Parameters
    ----------
    problem : BudgetQUBO
    states : array_like of 0/1, shape (n,) or (batch, n)

    Returns
    -------
    ndarray of uint8, of the same shape
        Feasible; rows that were feasible are unchanged.
    """
    X = problem.as_states(states).copy()
    batch = np.atleast_2d(X)
    for row in np.flatnonzero(~np.atleast_1d(problem.is_feasible(batch))):
        _Repair(problem, batch[row]).run()
    return X


class _Repair:
    """A state under repair, with its local fields."""

    def __init__(self, problem: BudgetQUBO, x: State) -> None:
        self.problem, self.x = problem, x
        self.fields: Vector = problem.fields(x)
        self.costs, budget, _ = problem.whole
        self.missing = budget - int(self.costs[x == 1].sum())
        self.counts = problem.count(x[None])[0]

    def flip(self, i: int) -> None:
        """Flip a variable and update fields, counts and what is missing to the budget."""
        step = 1 - 2 * int(self.x[i])
        self.x[i] = 1 - self.x[i]
        own = self.fields[i]
        self.fields += 2 * step * self.problem.row(i)
        self.fields[i] = own  # a variable's field does not depend on its own value
        self.counts[self.problem.groups[i]] += step
        self.missing -= step * int(self.costs[i])

    def run(self) -> None:
        """Bring the counts into their bounds, then save the budget."""
        for g, members in enumerate(self.problem.group_members):
            while self.counts[g] > self.problem.most[g]:
                ones = members[self.x[members] == 1]
                self.flip(int(ones[np.argmax(self.fields[ones])]))
            while self.counts[g] < self.problem.least[g]:
                zeros = members[self.x[members] == 0]
                self.flip(int(zeros[np.argmin(self.fields[zeros])]))
        while self.missing > 0:
            for i in self.best_step():
                self.flip(i)

    def best_step(self) -> tuple[int, ...]:
        """Return the flip, or the pair to exchange, of the least energy per saved unit."""
        problem, x, fields = self.problem, self.x, self.fields
        full = self.counts >= problem.most
        able = (x == 0) & ~full[problem.groups] & (self.costs > 0)
        best: tuple[float, tuple[int, ...]] = (np.inf, ())
        if len(places := np.flatnonzero(able)):
            # More than what is missing is worth nothing, unless the flip lowers the energy.
            worth = np.minimum(self.costs[places], self.missing)
            rates = np.where(fields[places] < 0, fields[places], fields[places] / worth)
            at = int(np.argmin(rates))
            best = (float(rates[at]), (int(places[at]),))
        for g in np.flatnonzero(full):
            members = problem.group_members[g]
            ones, zeros = members[x[members] == 1], members[x[members] == 0]
            for i in ones:
                dearer = zeros[self.costs[zeros] > self.costs[i]]
                if len(dearer):
                    row = problem.row(int(i))
                    change = fields[dearer] - fields[i] - 2 * row[dearer]
                    worth = np.minimum(self.costs[dearer] - self.costs[i], self.missing)
                    rates = np.where(change < 0, change, change / worth)
                    at = int(np.argmin(rates))
                    if rates[at] < best[0]:
                        best = (float(rates[at]), (int(i), int(dearer[at])))
        return best[1]
