"""The problem as a convex quadratic that has the same energies on feasible states.

On feasible states ``x_i² = x_i`` and ``Σ_{i∈g} x_i = k_g``, so that for any ``d`` and ``μ``

    xᵀQx = xᵀPx + lᵀx + c,   P = Q - diag(d) + Σ_g μ_g 1_g 1_gᵀ,
                             l_i = d_i - 2 μ_g k_g,   c = Σ_g μ_g k_g²

(quadratic convex reformulation: Billionnet, Elloumi & Plateau, Discrete Applied
Mathematics 157, 2009). The larger ``d`` is while ``P`` stays positive definite, the
tighter the continuous relaxation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cholesky

from problems import CardinalityQUBO
from solvers.base import Request
from solvers.exact.diagonal_shift import convexifying_diagonal

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

#: Energies closer than this share of ``Σ|Q_ij|`` count as equal: where many states tie, a
#: proof down to the last bit would have to visit them all.
TIE = 5e-11
#: Share of the largest coefficient that the diagonal of a matrix has at the least: with less,
#: Newton's steps leave floating point.
_FLAT = 2.0**-60
#: Unit roundoff of float64.
ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Convex:
    """``f(x) = xᵀPx + linearᵀx + constant`` with ``P`` positive definite."""

    linear: Vector
    """l, shape (n,)."""
    constant: float
    slack: float
    """How far rounding may carry a bound computed from ``P`` and ``linear``."""
    loss: float
    """How far the margin that keeps ``P`` definite may lower the relaxation."""
    groups: Array
    mu: Vector
    """μ, shape (groups,)."""
    matrix: Matrix | None
    """P, where the problem is held densely."""
    factor: Matrix | None
    """A, with ``P = AᵀA + margin·I``, where the problem is held as factors."""
    margin: float
    curvature: float
    """Mean diagonal entry of ``P``."""
    scale: float
    """``Σ|Q_ij|``, or less where that would take forming ``Q``."""

    @property
    def tolerance(self) -> float:
        """What a proof may miss: rounding, of a bound and of an energy, the margin, or a tie."""
        return max(2 * self.slack + self.loss, TIE * self.scale) if self.scale else 0.0

    @property
    def accuracy(self) -> float:
        """Multipliers wrong by less are rounding, or not worth a step."""
        return max(1e-9 * self.curvature, 16 * ROUNDOFF * float(np.abs(self.linear).max()))

    def gradient(self, y: Vector) -> Vector:
        """``2Py + l``."""
        if self.matrix is not None:
            return 2.0 * (self.matrix @ y) + self.linear
        assert self.factor is not None
        return 2.0 * ((self.factor @ y) @ self.factor + self.margin * y) + self.linear

    def value(self, y: Vector, gradient: Vector) -> float:
        """``f(y)``, from the gradient there."""
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


def convexify(problem: CardinalityQUBO, request: Request) -> Convex:
    """Choose ``d`` and ``μ``: at once for a factored problem, by ascent for a dense one."""
    return _from_factors(problem) if problem.is_factored else _from_matrix(problem, request)


def _from_factors(problem: CardinalityQUBO) -> Convex:
    """``AᵀA`` is convex as it stands; ``d`` is the linear part less a margin for rounding.

    ``fl(AᵀA)`` differs from ``AᵀA`` by at most ``(m + 2)u tr(AᵀA)`` in the spectral norm,
    which the margin outweighs.
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


def _from_matrix(problem: CardinalityQUBO, request: Request) -> Convex:
    Q = problem.float64_matrix()
    n = problem.n
    P = Q - np.diag(np.diag(Q))
    norms = np.linalg.norm(P, axis=1)
    coupled = norms > 0
    # A variable without couplings can make up for any move of its group's others, so that
    # holding the group's sum is worth nothing.
    held = np.bincount(problem.groups, ~coupled, problem.num_groups) == 0
    mu = np.where(held, 4 * float(np.linalg.norm(norms)) / np.maximum(problem.group_sizes, 1), 0.0)
    P += np.where(problem.groups[:, None] == problem.groups, mu[problem.groups][:, None], 0.0)
    inner = np.flatnonzero(coupled)
    P[inner, inner] += convexifying_diagonal(P[np.ix_(inner, inner)], norms[inner], request)
    margin = _FLAT * problem.peaks[0] if P.diagonal().max() < _FLAT * problem.peaks[0] else 0.0
    P[np.diag_indices(n)] += margin
    margin += _certify(P)
    wanted = mu * problem.cardinalities
    added = P.diagonal() - mu[problem.groups]
    linear = Q.diagonal() - added - 2 * wanted[problem.groups]
    constant = float(wanted @ problem.cardinalities)
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


def _certify(P: Matrix) -> float:
    """Raise the diagonal of ``P`` in place until it is provably positive semidefinite.

    If the floating-point Cholesky factorisation of ``P - cI`` runs to its end with
    ``c = (n + 2)u tr(P)``, up to a small factor, then ``P`` is positive semidefinite
    (Rump, BIT 46, 2006). Returns how much was added.
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
