"""Presolve: fix variables that take the same value in every optimum, keeping each k.

Take an optimal ``x`` and two variables of one group with ``x_i = 1`` and ``x_j = 0``. Moving
the one from ``i`` to ``j`` changes the energy by

    D_ji = (Q_jj - Q_ii) + 2 Σ_{l≠i,j} (Q_jl - Q_il) x_l,

where the other variables hold ``k_g - 1`` ones in the group of ``i`` and ``j`` and ``k_h`` in
each other group ``h``. If ``D_ji < 0`` for all their values, ``j`` *dominates* ``i``: in an
optimum ``x_i = 1`` implies ``x_j = 1``. So a variable that is dominated by ``k_g`` others of its
group is 0 (with it there would be too many ones), and one that dominates all but fewer than
``k_g`` others is 1. Both hold in *every* optimum, so that any number of variables can be fixed at
once, and the remaining problem can be presolved again.

Two upper bounds on ``D_ji`` are used. *By fields*, ``D_ji <= high_j - low_i`` with the largest
and smallest possible field of a variable, from the largest and smallest sums of as many entries
of its row as there are ones left: O(n²) for all. *By pairs*, the largest sum of the differences
of two rows: tighter, and O(n³) for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.qubo import CardinalityQUBO
from problems.repair import repair
from problems.scaling import check_energies

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Entries of Q in memory at a time, in float64 (8 MiB).
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Presolved:
    """A reduced problem, and the values of the fixed variables."""

    problem: CardinalityQUBO
    """Problem of the free variables; its energies are those of the whole problem."""
    fixed: npt.NDArray[np.int8]
    """Value of each variable of the whole problem, -1 where it is free; shape (n,)."""

    @property
    def free(self) -> npt.NDArray[np.intp]:
        """Indices of the free variables, in the order of the reduced problem."""
        return np.flatnonzero(self.fixed < 0)

    def restore(self, x: Any) -> npt.NDArray[np.uint8]:
        """Return states of the reduced problem with the fixed variables added.

        Parameters
        ----------
        x : array_like of 0/1, shape (n_free,) or (batch, n_free)

        Returns
        -------
        ndarray of uint8, shape (n,) or (batch, n)

        Raises
        ------
        InvalidProblemError
            If the states do not fit the reduced problem.
        """
        states = self.problem.as_states(x)
        full = np.empty((*states.shape[:-1], len(self.fixed)), dtype=np.uint8)
        full[...] = np.maximum(self.fixed, 0)
        full[..., self.free] = states
        return full

    def reduce(self, x: Any) -> npt.NDArray[np.uint8]:
        """Restrict states of the whole problem (warm starts) to the reduced one.

        Where a state contradicts the fixed values, the cardinalities of the rest are
        repaired by :func:`problems.repair.repair`.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,) or (batch, n)

        Returns
        -------
        ndarray of uint8, shape (n_free,) or (batch, n_free)
        """
        return repair(self.problem, np.asarray(x)[..., self.free])


def presolve(problem: CardinalityQUBO, *, pairs_up_to: int = 256) -> Presolved:
    """Fix variables by dominance until no more can be fixed.

    Every optimal state survives: restoring the optima of the reduced problem gives exactly
    those of ``problem``.

    Parameters
    ----------
    problem : CardinalityQUBO
        Dense or factored; the reduced problem has the same form (a dense one in float64).
    pairs_up_to : int, default 256
        Largest number of free variables for which pairs of rows are compared, in O(n³) time, when
        bounds by fields fix no more variables.

    Returns
    -------
    Presolved

    Raises
    ------
    InvalidProblemError
        If energies leave float64.
    """
    check_energies(problem)
    fixed = np.full(problem.n, -1, dtype=np.int8)
    free, reduced = np.arange(problem.n), problem
    while reduced.n:
        zeros, ones = reduced.forced_variables()
        if not (zeros | ones).any():
            zeros, ones = _by_fields(reduced)
        if not (zeros | ones).any() and reduced.n <= pairs_up_to:
            zeros, ones = _by_pairs(reduced)
        if not (zeros | ones).any():
            break
        fixed[free[zeros]], fixed[free[ones]] = 0, 1
        free = free[~(zeros | ones)]
        reduced = restrict(reduced, zeros, ones)
    return Presolved(reduced, fixed)


def restrict(problem: CardinalityQUBO, zeros: Mask, ones: Mask) -> CardinalityQUBO:
    """Return the problem of the other variables with these ones fixed.

    Parameters
    ----------
    problem : CardinalityQUBO
    zeros, ones : ndarray of bool, shape (n,)
        Which variables are 0 and 1; disjoint.

    Raises
    ------
    InvalidProblemError
        If a group has too few variables left, or too many ones, for its k.
    """
    rest = ~(zeros | ones)
    taken = problem.count(ones[None])[0]
    labels = problem.labels
    constraint: dict[str, Any] = {
        "k": problem.cardinalities - taken,
        "groups": problem.groups[rest],
        "offset": problem.energy(ones.astype(np.uint8)),
        "labels": None if labels is None else [labels[i] for i in np.flatnonzero(rest)],
    }
    if problem.num_groups == 1:
        constraint |= {"k": int(constraint["k"][0]), "groups": None}
    if problem.is_factored:
        A = problem.A
        inner = A[:, ones].sum(axis=1, dtype=np.float64)
        linear = problem.linear[rest] + 2 * (A[:, rest].astype(np.float64).T @ inner)
        return CardinalityQUBO.from_factors(A[:, rest], linear, **constraint)
    Q = problem.Q[np.ix_(rest, rest)].astype(np.float64)
    Q[np.diag_indices(len(Q))] += 2 * problem.Q[np.ix_(rest, ones)].sum(axis=1, dtype=np.float64)
    return CardinalityQUBO(Q, **constraint)


def _decide(problem: CardinalityQUBO, over: Vector, under: Vector) -> tuple[Mask, Mask]:
    """Fix variables by the number of others that dominate them, and that they dominate."""
    k = problem.cardinalities[problem.groups]
    return over >= k, under >= problem.group_sizes[problem.groups] - k


def _by_fields(problem: CardinalityQUBO) -> tuple[Mask, Mask]:
    """Fix variables by bounds on their own fields."""
    low, high = np.empty(problem.n), np.empty(problem.n)
    slack = _slack(problem)
    for rows, Q in _row_chunks(problem):
        own, diagonal = problem.groups[rows], Q[np.arange(len(rows)), rows].copy()
        low[rows], high[rows] = diagonal - slack[rows], diagonal + slack[rows]
        for g, members in enumerate(problem.group_members):
            k = int(problem.cardinalities[g])
            for inside in (False, True):
                at = np.flatnonzero((own == g) == inside)
                entries = Q[np.ix_(at, members)]
                if inside:  # one of the k ones is the variable itself
                    place = np.searchsorted(members, rows[at])
                    entries[np.arange(len(at)), place] = -np.inf
                    high[rows[at]] += 2 * _largest(entries, k - 1)
                    entries[np.arange(len(at)), place] = np.inf
                    low[rows[at]] -= 2 * _largest(-entries, k - 1)
                else:
                    high[rows[at]] += 2 * _largest(entries, k)
                    low[rows[at]] -= 2 * _largest(-entries, k)
    over, under = np.zeros(problem.n), np.zeros(problem.n)
    for members in problem.group_members:
        ceilings, floors = np.sort(high[members]), np.sort(low[members])
        over[members] = np.searchsorted(ceilings, low[members], side="left")
        under[members] = len(members) - np.searchsorted(floors, high[members], side="right")
    return _decide(problem, over, under)


def _by_pairs(problem: CardinalityQUBO) -> tuple[Mask, Mask]:
    """Fix variables by bounds on the difference of two rows."""
    over, under = np.zeros(problem.n), np.zeros(problem.n)
    slack, groups = _slack(problem), problem.group_members
    Q = np.concatenate([rows for _, rows in _row_chunks(problem)])
    diagonal = Q.diagonal()
    for g, members in enumerate(groups):
        own = np.arange(len(members))
        for at, i in enumerate(members):
            difference = Q[members] - Q[i]  # row j: contribution of l to D_ji / 2
            bound = diagonal[members] - diagonal[i] + slack[members] + slack[i]
            for h, others in enumerate(groups):
                entries = difference[:, others]
                if h == g:
                    entries[own, own], entries[:, at] = -np.inf, -np.inf
                bound += 2 * _largest(entries, int(problem.cardinalities[h]) - (h == g))
            dominates = bound < 0
            dominates[at] = False
            over[i] += dominates.sum()
            under[members] += dominates
    return _decide(problem, over, under)


def _largest(entries: Vector, count: int) -> Vector:
    """Sum the ``count`` largest entries of each row."""
    width = entries.shape[1]
    if count <= 0:
        return np.zeros(len(entries))
    if count < width:
        entries = np.partition(entries, width - count, axis=1)[:, width - count :]
    return entries.sum(axis=1)


def _slack(problem: CardinalityQUBO) -> Vector:
    """Bound the rounding error of each variable's bounds, shape (n,)."""
    if problem.is_factored:
        A = np.abs(problem.A).astype(np.float64)
        sizes = A.T @ A.sum(axis=1) + np.abs(problem.linear)
        terms = problem.n + A.shape[0]
    else:
        sizes, terms = np.abs(problem.Q).sum(axis=1, dtype=np.float64), problem.n
    limits = np.finfo(np.float64)
    # A subnormal product is rounded by up to half the smallest subnormal number.
    least = problem.n * float(limits.smallest_subnormal)
    return 8 * (terms + 2) * (limits.eps * sizes + least)


def _row_chunks(problem: CardinalityQUBO) -> Iterator[tuple[npt.NDArray[np.intp], Vector]]:
    """Yield indices and rows of Q in float64, a bounded number at a time."""
    step = max(1, _CHUNK // max(1, problem.n))
    A = problem.A.astype(np.float64) if problem.is_factored else None
    for start in range(0, problem.n, step):
        rows = np.arange(start, min(start + step, problem.n))
        if A is None:
            yield rows, problem.Q[rows].astype(np.float64)
        else:
            Q = A[:, rows].T @ A
            Q[np.arange(len(rows)), rows] += problem.linear[rows]
            yield rows, Q
