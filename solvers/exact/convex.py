"""Convex reformulation: a convex quadratic with the same energies on feasible states.

On feasible states, ``x_i² = x_i`` and ``Σ_{i∈g} x_i = k_g``, so that for any ``d`` and ``μ``

    xᵀQx = xᵀPx + lᵀx + c,   P = Q - diag(d) + Σ_g μ_g 1_g 1_gᵀ,
                             l_i = d_i - 2 μ_g k_g,   c = Σ_g μ_g k_g²

(quadratic convex reformulation: Billionnet, Elloumi & Plateau, Discrete Applied
Mathematics 157, 2009). The larger ``d`` is while ``P`` stays positive definite, the
tighter the continuous relaxation.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cholesky, eigh

from problems import BudgetQUBO
from solvers.base import Problem, Request
from solvers.exact.diagonal_shift import convexifying_diagonal, removable_diagonal

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

#: Energies closer than this share of ``Σ|Q_ij|`` count as equal: with many ties, a proof to the
#: last bit would have to visit all of them.
TIE = 5e-11
#: Smallest diagonal of a matrix, as a share of the largest coefficient: with less, Newton steps
#: overflow.
_FLAT = 2.0**-60
#: Eigenvalues below this share of the largest are treated as rounding errors.
_NEGLIGIBLE = 1e-12
#: Unit roundoff of float64.
ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Convex:
    """``f(x) = xᵀPx + linearᵀx + constant`` with ``P`` positive definite."""

    linear: Vector
    """l, shape (n,)."""
    constant: float
    slack: float
    """Largest rounding error of a bound computed from ``P`` and ``linear``."""
    loss: float
    """Largest decrease of the relaxation by the margin that keeps ``P`` definite."""
    groups: Array
    mu: Vector
    """μ, shape (groups,)."""
    matrix: Matrix | None
    """P, for a dense problem."""
    factor: Matrix | None
    """A, with ``P = AᵀA + margin·I``, for a factored problem."""
    margin: float
    curvature: float
    """Mean diagonal entry of ``P``."""
    scale: float
    """``Σ|Q_ij|``, or a lower estimate if that would require forming ``Q``."""

    @property
    def tolerance(self) -> float:
        """Tolerance of a proof: rounding errors of bound and energy, the margin, or a tie."""
        return max(2 * self.slack + self.loss, TIE * self.scale) if self.scale else 0.0

    @property
    def accuracy(self) -> float:
        """Smaller errors of multipliers are rounding errors, or negligible."""
        return max(1e-9 * self.curvature, 16 * ROUNDOFF * float(np.abs(self.linear).max()))

    def gradient(self, y: Vector) -> Vector:
        """``2Py + l``."""
        if self.matrix is not None:
            return 2.0 * (self.matrix @ y) + self.linear
        assert self.factor is not None
        return 2.0 * ((self.factor @ y) @ self.factor + self.margin * y) + self.linear

    def value(self, y: Vector, gradient: Vector) -> float:
        """``f(y)``, from its gradient."""
        return float(0.5 * (y @ (gradient + self.linear))) + self.constant

    def block(self, index: Array) -> Matrix:
        """``P`` restricted to some variables."""
        if self.matrix is not None:
            return np.ascontiguousarray(self.matrix[np.ix_(index, index)])
        assert self.factor is not None
        columns = self.factor[:, index]
        block: Matrix = np.ascontiguousarray(columns.T @ columns)
        block[np.diag_indices(len(index))] += self.margin
        return block


def convexify(problem: Problem, request: Request) -> Convex:
    """Choose ``d`` and ``μ``: directly for a factored problem, by optimisation for a dense one."""
    return _from_factors(problem) if problem.is_factored else _from_matrix(problem, request)


def shift_diagonal(convex: Convex, weights: Vector) -> Convex:
    """Move a non-negative part of the diagonal of ``P`` to the linear terms, as much as possible.

    Parameters
    ----------
    convex : Convex
    weights : ndarray, shape (n,)
        ``Σ weights_i d_i`` is about maximised over the parts ``d``.

    Returns
    -------
    Convex
        The given one if nothing can be moved.
    """
    n = len(convex.linear)
    P = convex.block(np.arange(n))
    shift = removable_diagonal(P, weights)
    if not shift.any():
        return convex
    P[np.diag_indices(n)] -= shift
    added = _certify(P)
    linear = convex.linear + shift - added
    rows = np.abs(linear) + np.abs(shift) + 2 * np.abs(P).sum(axis=1)
    return dataclasses.replace(
        convex,
        linear=linear,
        slack=convex.slack + 8 * (n + 8) * ROUNDOFF * n * float(rows.max()),
        loss=convex.loss + added * n / 4,
        matrix=P,
        factor=None,
        margin=0.0,
        curvature=float(P.trace()) / n,
    )


def linear_forms(P: Matrix) -> Matrix:
    """Return ``B`` with ``BᵀB`` about ``P``, so that ``xᵀPx`` is the sum of squares of ``Bx``.

    Parameters
    ----------
    P : ndarray, shape (n, n)
        Positive semidefinite.

    Returns
    -------
    ndarray, shape (r, n)
        Eigenvectors times the roots of their eigenvalues, the largest first. Eigenvalues that are
        rounding errors are left out.
    """
    values, vectors = eigh(P)
    chosen = values > _NEGLIGIBLE * values[-1]
    forms: Matrix = (vectors[:, chosen] * np.sqrt(values[chosen])).T[::-1]
    return forms


def _from_factors(problem: Problem) -> Convex:
    """``AᵀA`` is convex; ``d`` is the linear part minus a margin for rounding.

    ``fl(AᵀA)`` differs from ``AᵀA`` by at most ``(m + 2)u tr(AᵀA)`` in the spectral norm, which
    is less than the margin.
    """
    A = np.ascontiguousarray(problem.A, dtype=np.float64)
    m, n = A.shape
    norms = np.sqrt(np.einsum("ij,ij->j", A, A))
    trace = float(norms @ norms)
    unit = (m + n + 8) * ROUNDOFF
    margin = 4 * unit * max(trace, float(np.abs(problem.linear).max()))
    linear = problem.linear - margin
    rows = np.abs(linear) + 2 * (norms * norms.sum() + margin)
    return Convex(
        linear=linear,
        constant=0.0,
        slack=8 * unit * n * float(rows.max()),
        loss=margin * n / 4,
        groups=problem.groups,
        mu=np.zeros(problem.num_groups),
        matrix=None,
        factor=A,
        margin=margin,
        curvature=trace / n + margin,
        scale=float(np.abs(problem.diagonal).sum() + abs((A.sum(axis=1) ** 2).sum() - trace)),
    )


def _from_matrix(problem: Problem, request: Request) -> Convex:
    Q = problem.float64_matrix()
    n = problem.n
    P = Q - np.diag(np.diag(Q))
    norms = np.linalg.norm(P, axis=1)
    coupled = norms > 0
    # A variable without couplings can compensate any move of its group's others, so that
    # penalising the group's sum gains nothing.
    coupled_groups = np.bincount(problem.groups, ~coupled, problem.num_groups) == 0
    counts, fixed = _fixed_counts(problem)
    mu = np.where(
        coupled_groups & fixed,
        4 * float(np.linalg.norm(norms)) / np.maximum(problem.group_sizes, 1),
        0.0,
    )
    P += np.where(problem.groups[:, None] == problem.groups, mu[problem.groups][:, None], 0.0)
    inner = np.flatnonzero(coupled)
    P[inner, inner] += convexifying_diagonal(P[np.ix_(inner, inner)], norms[inner], request)
    margin = _FLAT * problem.peaks[0] if P.diagonal().max() < _FLAT * problem.peaks[0] else 0.0
    P[np.diag_indices(n)] += margin
    margin += _certify(P)
    wanted = mu * counts
    added = P.diagonal() - mu[problem.groups]
    linear = Q.diagonal() - added - 2 * wanted[problem.groups]
    constant = float(wanted @ counts)
    rows = np.abs(linear) + np.abs(Q.diagonal()) + np.abs(added) + 2 * np.abs(P).sum(axis=1)
    return Convex(
        linear=linear,
        constant=constant,
        slack=8 * (n + 8) * ROUNDOFF * (n * float(rows.max()) + constant),
        loss=margin * n / 4,
        groups=problem.groups,
        mu=mu,
        matrix=P,
        factor=None,
        margin=0.0,
        curvature=float(P.trace()) / n,
        scale=float(np.abs(Q).sum()),
    )


def _fixed_counts(problem: Problem) -> tuple[Array, Array]:
    """Return the number of ones of each group, and whether it is the same in all states."""
    if isinstance(problem, BudgetQUBO):
        return problem.most, problem.least == problem.most
    return problem.cardinalities, np.ones(problem.num_groups, bool)


def _certify(P: Matrix) -> float:
    """Raise the diagonal of ``P`` in place until it is provably positive semidefinite.

    If the floating-point Cholesky factorisation of ``P - cI`` succeeds with
    ``c = (n + 2)u tr(P)``, up to a small factor, then ``P`` is positive semidefinite (Rump, BIT
    46, 2006). Returns the amount added.
    """
    n = len(P)
    c = 2 * (n + 4) * ROUNDOFF * float(np.abs(P.diagonal()).sum())
    total, step = 0.0, c
    while True:
        try:
            cholesky(P - c * np.eye(n), overwrite_a=True, check_finite=False)
            return total
        except LinAlgError:
            step = 2 * step + np.finfo(float).tiny
            P[np.diag_indices(n)] += step
            total += step
