"""Greedy repair of states that violate their cardinalities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from problems.qubo import CardinalityQUBO


def repair(problem: CardinalityQUBO, states: Any) -> npt.NDArray[np.uint8]:
    """Make states feasible by greedy flips.

    In each group that has too many ones, the variable with the highest local field is cleared
    (which lowers the energy most, or raises it least); in one that has too few, the variable with
    the lowest field is set. Fields are updated after each flip.

    Parameters
    ----------
    problem : CardinalityQUBO
    states : array_like of 0/1, shape (n,) or (batch, n)

    Returns
    -------
    ndarray of uint8, of the same shape
        Feasible; rows that were feasible are unchanged.

    Raises
    ------
    InvalidProblemError
        Wrong shape, or an entry that is neither 0 nor 1.
    """
    X = problem.as_states(states).copy()
    batch = np.atleast_2d(X)
    for row in np.flatnonzero(~np.atleast_1d(problem.is_feasible(batch))):
        _repair_one(problem, batch[row])
    return X


def _repair_one(problem: CardinalityQUBO, x: npt.NDArray[np.uint8]) -> None:
    fields = problem.fields(x)
    excess = problem.count(x[None])[0] - problem.cardinalities
    for g in np.flatnonzero(excess):
        value, members = int(excess[g] > 0), problem.group_members[g]
        for _ in range(abs(int(excess[g]))):
            candidates = members[x[members] == value]
            worst = np.argmax(fields[candidates]) if value else np.argmin(fields[candidates])
            i = candidates[worst]
            x[i] = 1 - value
            own = fields[i]
            fields += 2 * (1 - 2 * value) * problem.Q[i].astype(np.float64)
            fields[i] = own  # a variable's field does not depend on its own value
