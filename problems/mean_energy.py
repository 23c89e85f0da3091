"""Mean energy of the feasible states of a problem."""

from __future__ import annotations

import numpy as np

from problems.qubo import CardinalityQUBO


def mean_energy(problem: CardinalityQUBO) -> float:
    """Return the mean energy over all feasible states, exactly.

    With p = k/n in each group, the mean of ``x_i x_j`` is p within one (i = j), ``p(k-1)/(n-1)``
    within one (i ≠ j), and the product of both p across groups. So the mean is that of p itself
    plus, for each group, ``p(1-p) n/(n-1) (tr Q_g - 1ᵀQ_g 1/n)``.
    """
    sizes = np.bincount(problem.groups, minlength=problem.num_groups)
    share = problem.cardinalities / np.maximum(sizes, 1)
    p = share[problem.groups]
    traces = np.bincount(problem.groups, problem.diagonal, problem.num_groups)
    if problem.is_factored:
        A = problem.A.astype(np.float64)
        columns = np.zeros((problem.num_groups, len(A)))
        np.add.at(columns, problem.groups, A.T)
        sums = np.square(columns).sum(1)
        sums += np.bincount(problem.groups, problem.linear, problem.num_groups)
        mean = float(np.square(A @ p).sum() + problem.linear @ p**2)
    else:
        rows = np.where(problem.groups[:, None] == problem.groups, problem.Q, 0.0).sum(1)
        sums = np.bincount(problem.groups, rows, problem.num_groups)
        mean = float(p @ problem.Q.astype(np.float64) @ p)
    spread = share * (1 - share) * sizes / np.maximum(sizes - 1, 1)
    return mean + float(spread @ (traces - sums / np.maximum(sizes, 1))) + problem.offset
