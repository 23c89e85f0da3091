"""Smallest diagonal that makes a matrix positive semidefinite."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh, inv
from scipy.sparse.linalg import eigsh

from solvers._numba import Array, jit
from solvers.base import Request

#: Largest number of sweeps, and of multiply-adds of all sweeps (a few seconds).
_SWEEPS, _BUDGET = 60, 2e10
#: Smallest eigenvalue of a matrix scaled to a diagonal of 1 that counts as definite.
_DEFINITE = 1e-6
#: Above this n, the smallest eigenvalue is computed by Lanczos iteration.
_DENSE = 1024


def convexifying_diagonal(
    M: npt.NDArray[np.float64], norms: npt.NDArray[np.float64], request: Request
) -> npt.NDArray[np.float64]:
    """Return a diagonal ``v`` of small sum that makes ``M + diag(v)`` about positive semidefinite.

    Minimises ``Σv - τ log det(M + diag(v))`` for falling ``τ``, one coordinate at a time (H.
    Dong, SIAM J. Optim. 26, 2016): with ``Z`` the inverse, the step to the minimum along ``v_i``
    is ``τ - 1/Z_ii``, and ``Z`` is updated with rank one. Variables are scaled by ``norms`` > 0,
    so that strong ones don't dominate weak ones. For large n, or at the time limit, it stops
    early, possibly at its start, a uniform shift by the smallest eigenvalue.
    """
    n = len(M)
    if n == 0:
        return np.zeros(0)
    scale = np.maximum(norms, 1e-8 * norms.max())
    root = np.sqrt(scale)
    S = M / root / root[:, None]
    unit = float(np.linalg.norm(S)) / n
    v = np.full(n, 1e-3 * unit - _least_eigenvalue(S))
    sweeps = min(_SWEEPS, int(_BUDGET / (2.0 * n**3)))
    if sweeps < 4:
        return v * scale
    Z = inv(S + np.diag(v))
    tau = 1.0 / float(np.trace(Z) / n)
    shrink = min(1.0, (1e-6 * unit / tau) ** (1.0 / sweeps))
    for sweep in range(sweeps):
        tau *= shrink
        _sweep(Z, v, tau)
        if request.remaining <= 0:
            break
        if sweep % 10 == 9:  # rounding errors of the updates accumulate
            Z = inv(S + np.diag(v))
    # Removes the remaining distance from a singular matrix.
    return (v - _least_eigenvalue(S + np.diag(v))) * scale


def removable_diagonal(
    P: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return ``d ≥ 0`` with a large ``Σ weights_i d_i`` so that ``P - diag(d)`` stays definite.

    The barrier method of :func:`convexifying_diagonal`, in variables scaled by the diagonal and
    started from ``d = 0``.
    """
    n = len(P)
    root = np.sqrt(P.diagonal())
    S = P / root / root[:, None]
    if _least_eigenvalue(S) < _DEFINITE:
        return np.zeros(n)
    w = weights * P.diagonal()
    w = w / w.max()
    d = np.zeros(n)
    Z = inv(S)
    tau = 1.0 / float(np.trace(Z) / n)
    for sweep in range(_SWEEPS):
        tau *= 0.75
        _shrink(Z, d, tau / np.maximum(w, 1e-6))
        if not np.isfinite(Z).all() or tau < _DEFINITE:
            break
        if sweep % 10 == 9:
            Z = inv(S - np.diag(d))
    spare = max(0.0, 1e-9 - _least_eigenvalue(S - np.diag(d)))
    shift: npt.NDArray[np.float64] = np.maximum(d - spare, 0.0) * root**2
    return shift


@jit
def _shrink(Z: Array, d: Array, tau: Array) -> None:
    """Raise each ``d_i ≥ 0`` to the optimum of the barrier function, in turn."""
    n = len(d)
    for i in range(n):
        step = max(1.0 / Z[i, i] - tau[i], -d[i])
        d[i] += step
        factor = -step / (1.0 - step * Z[i, i])
        z = Z[i].copy()
        for a in range(n):
            c = factor * z[a]
            for b in range(n):
                Z[a, b] -= c * z[b]


def _least_eigenvalue(S: npt.NDArray[np.float64]) -> float:
    if len(S) <= _DENSE:
        return float(eigvalsh(S, subset_by_index=[0, 0])[0])
    return float(eigsh(S, k=1, which="SA", tol=1e-4, v0=np.ones(len(S)))[0][0])


@jit
def _sweep(Z: Array, v: Array, tau: float) -> None:
    """Minimise the barrier function along each coordinate in turn."""
    n = len(v)
    for i in range(n):
        step = tau - 1.0 / Z[i, i]
        v[i] += step
        factor = step / (1.0 + step * Z[i, i])
        z = Z[i].copy()
        for a in range(n):
            c = factor * z[a]
            for b in range(n):
                Z[a, b] -= c * z[b]
