"""Small dense factorisations for compiled kernels, without the overhead of LAPACK."""

from __future__ import annotations

import numpy as np

from solvers._numba import Array, jit


@jit
def cholesky(H: Array, n: int) -> bool:
    """Overwrite the lower triangle of ``H[:n, :n]`` by ``L`` with ``H = LLᵀ``.

    Returns False, with ``H`` partly overwritten, if a pivot is not positive.
    """
    for i in range(n):
        for j in range(i):
            s = H[i, j]
            for q in range(j):
                s -= H[i, q] * H[j, q]
            H[i, j] = s / H[j, j]
        s = H[i, i]
        for q in range(i):
            s -= H[i, q] * H[i, q]
        if not s > 0.0:
            return False
        H[i, i] = np.sqrt(s)
    return True


@jit
def solve(L: Array, b: Array, n: int) -> None:
    """Overwrite ``b[:n]`` by the solution of ``LLᵀ z = b``."""
    for i in range(n):
        s = b[i]
        for q in range(i):
            s -= L[i, q] * b[q]
        b[i] = s / L[i, i]
    for i in range(n - 1, -1, -1):
        b[i] /= L[i, i]
        for q in range(i):
            b[q] -= L[i, q] * b[i]
