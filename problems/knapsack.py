"""Linear costs under a budget: Lagrangian bound, and a feasible state by its multiplier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from problems.budget import BudgetQUBO
from problems.groups import Array, State

Vector = npt.NDArray[np.float64]

#: Halvings of the bracket of the multiplier.
_STEPS = 60


class LinearOptimum(NamedTuple):
    """Bound on a linear cost over feasible states, and a state near it."""

    x: State
    """A feasible state, shape (n,)."""
    multiplier: float
    """λ ≥ 0, in cost per whole unit of saving."""
    shifts: Vector
    """μ of each group, shape (groups,): the cost of one more one in it."""
    bound: float
    """Lower bound on ``cost @ x`` over all feasible states."""


def minimise_linear(problem: BudgetQUBO, cost: Vector) -> LinearOptimum:
    """Minimise ``cost @ x`` under the budget and the counts, but for one variable.

    For a multiplier λ of the budget, ``Σ (cost_i - λ a_i) x_i`` is minimal where each group has
    its smallest terms: all negative ones, within its counts. Their saving grows with λ (Everett,
    Operations Research 11, 1963), which is bisected; what the largest λ with too little saving
    leaves missing is added in order of cost per unit. The dual value is the bound of the linear
    relaxation, and the state misses the optimum by less than the cost of the last variable.
    """
    costs, budget, _ = problem.whole
    x, shifts = _smallest(problem, cost)
    if int(costs[x == 1].sum()) >= budget:
        return LinearOptimum(x, 0.0, shifts, float(cost[x == 1].sum()))
    able = costs > 0
    low, high = 0.0, 1e-300 + 2 * float((np.abs(cost[able]) / costs[able]).max())
    if problem.is_counted:  # exchanges within a group, of costs that differ by one unit or more
        high = max(high, 4 * float(np.abs(cost).max()))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        chosen, _ = _smallest(problem, cost - middle * costs)
        if int(costs[chosen == 1].sum()) >= budget:
            high = middle
        else:
            low, x = middle, chosen
    full, shifts = _smallest(problem, cost - high * costs)
    reduced = cost - high * costs
    bound = high * budget + float(reduced[full == 1].sum())
    return LinearOptimum(_between(problem, cost, x, full), high, shifts, bound)


def _between(problem: BudgetQUBO, cost: Vector, short: State, full: State) -> State:
    """Clear needless ones of ``full``, the most expensive per unit first; repair at need."""
    costs, budget, _ = problem.whole
    x = full.copy()
    spare = int(costs[x == 1].sum()) - budget
    if spare < 0:
        return problem.repair(short)
    counts = problem.count(x[None])[0]
    rate = np.where(cost > 0, cost / np.maximum(costs, 1e-9), -np.inf)
    for i in np.argsort(-rate, kind="stable"):
        if rate[i] == -np.inf:
            break
        g = problem.groups[i]
        if x[i] and costs[i] <= spare and counts[g] > problem.least[g]:
            x[i], spare = 0, spare - int(costs[i])
            counts[g] -= 1
    return x


def _smallest(problem: BudgetQUBO, cost: Vector) -> tuple[State, Vector]:
    """Minimise a linear cost under the counts alone; return the state, and each group's μ."""
    x = (cost < 0).astype(np.uint8)
    shifts = np.zeros(problem.num_groups)
    if not problem.is_counted:
        return x, shifts
    counts = problem.count(x[None])[0]
    for g in np.flatnonzero((counts < problem.least) | (counts > problem.most)):
        members = problem.group_members[g]
        wanted = int(np.clip(counts[g], problem.least[g], problem.most[g]))
        order = members[np.argsort(cost[members], kind="stable")]
        x[members] = 0
        x[order[:wanted]] = 1
        shifts[g] = cost[order[wanted - 1 if counts[g] < wanted else wanted]]
    return x, shifts


def fill(problem: BudgetQUBO, order: Array, wanted: Array) -> State:
    """Set variables in an order, within the counts, until the budget is saved.

    Parameters
    ----------
    problem : BudgetQUBO
    order : ndarray of int, shape (n,)
        The variables, the first to set first.
    wanted : ndarray of bool, shape (n,)
        Variables that are set even if the budget is saved already.

    Returns
    -------
    ndarray of uint8, shape (n,)
        Feasible; repaired if the order leads to a state that is not.
    """
    costs, budget, _ = problem.whole
    labels = problem.groups[order]
    by_group = np.argsort(labels, kind="stable")
    rank = np.empty(problem.n, np.int64)
    sizes = problem.group_sizes
    rank[by_group] = np.arange(problem.n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    needed, allowed = rank < problem.least[labels], rank < problem.most[labels]
    first = needed | (wanted[order] & allowed)
    before = int(costs[order[first]].sum())
    rest = np.flatnonzero(allowed & ~first & (costs[order] > 0))
    saved = before + np.cumsum(costs[order[rest]])
    more = rest[: int(np.searchsorted(saved, budget)) + 1] if before < budget else rest[:0]
    x = np.zeros(problem.n, np.uint8)
    x[order[first]], x[order[more]] = 1, 1
    return problem.repair(x)
