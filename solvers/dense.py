"""The coefficients as one float64 matrix, for the solvers whose proofs hang on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO

Matrix = npt.NDArray[np.float64]


def float64_matrix(problem: CardinalityQUBO) -> Matrix:
    """Return ``Q`` in float64, C-contiguous, shape (n, n).

    A factored problem is multiplied out in float64 whatever its dtype: a product formed in
    float32 would differ from the energies that the framework reports.
    """
    if not problem.is_factored:
        return np.ascontiguousarray(problem.Q, dtype=np.float64)
    factor: Any = problem.A.astype(np.float64, copy=False)
    Q: Matrix = np.ascontiguousarray(factor.T @ factor)
    Q[np.diag_indices(problem.n)] += problem.linear
    return Q
