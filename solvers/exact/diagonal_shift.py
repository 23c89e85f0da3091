"""The diagonal that convexifies a matrix at the least cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh, inv
from scipy.sparse.linalg import eigsh

from solvers._numba import Array, jit
from solvers.base import Request

#: Sweeps of the ascent, and the multiply-adds that they may take (a few seconds).
_SWEEPS, _BUDGET = 60, 2e10
#: Above this n the least eigenvalue is found by Lanczos iteration.
_DENSE = 1024


def convexifying_diagonal(
    M: npt.NDArray[np.float64], norms: npt.NDArray[np.float64], request: Request
) -> npt.NDArray[np.float64]:
    """Return a diagonal ``v`` with small sum and ``M + diag(v)`` about positive definite.

    Minimises ``Σv - τ log det(M + diag(v))`` for falling ``τ``, one coordinate at a time
    (H. Dong, SIAM J. Optim. 26, 2016): with ``Z`` the inverse, the minimum along ``v_i``
    lies ``τ - 1/Z_ii`` away, and ``Z`` follows by a rank-one update. Variables are scaled
    by ``norms`` > 0, so that strong ones don't drown the weak. For large n, or
    out of time, it stops early, in the end at a uniform shift by the least eigenvalue,
    where it starts.
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
        if sweep % 10 == 9:  # the updates collect rounding
            Z = inv(S + np.diag(v))
    # What the barrier left between the matrix and singularity.
    return (v - _least_eigenvalue(S + np.diag(v))) * scale


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
