"""A problem's coefficients as NumPy arrays, with energies and fields in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.checks import checked_coefficients, symmetrised
from problems.errors import InvalidProblemError

Array = npt.NDArray[Any]

#: Entries converted to float64 at a time when an energy is evaluated (512 KiB, fits caches).
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Arrays:
    """Either ``Q``, or ``A`` and ``linear``; see :class:`problems.CardinalityQUBO`."""

    Q: Array | None
    """Shape (n, n), float32 or float64."""
    A: Array | None
    """Shape (m, n), float32 or float64."""
    linear: Array | None
    """Shape (n,), float64."""

    @classmethod
    def of_matrix(cls, Q: Any) -> Arrays:
        """Check a symmetric matrix; raises the errors of :class:`CardinalityQUBO`."""
        matrix = checked_coefficients(Q, "Q", ndim=2)
        if matrix.shape[0] != matrix.shape[1]:
            raise InvalidProblemError(f"Q has shape {matrix.shape}; it must be square, (n, n)")
        return cls(symmetrised(matrix), None, None)

    @classmethod
    def of_factors(cls, A: Any, linear: Any) -> Arrays:
        """Check factors; raises the errors of :class:`CardinalityQUBO`."""
        factor = checked_coefficients(A, "A", ndim=2)
        vector = checked_coefficients(linear, "linear", ndim=1).astype(np.float64, copy=False)
        if factor.shape[1] != vector.shape[0]:
            raise InvalidProblemError(
                f"A has {factor.shape[1]} columns but linear has {vector.shape[0]} entries; "
                "both must be n"
            )
        return cls(None, factor, vector)

    @property
    def coefficients(self) -> Array:
        """``Q``, or ``A`` of a factored problem."""
        held = self.A if self.Q is None else self.Q
        assert held is not None
        return held

    @cached_property
    def peaks(self) -> tuple[float, float]:
        """Largest magnitudes: of ``Q``, or of ``A``, and of ``linear`` (0 where there is none)."""
        return _peak(self.coefficients), 0.0 if self.linear is None else _peak(self.linear)

    def diagonal(self) -> Array:
        """Diagonal of the matrix in float64, shape (n,)."""
        if self.Q is not None:
            return self.Q.diagonal().astype(np.float64)
        assert self.A is not None
        return np.einsum("ij,ij->j", self.A, self.A, dtype=np.float64) + self.linear

    def energy(self, X: Array) -> Array:
        """Energies ``xᵀQx`` in float64, shape (batch,), of float64 states (batch, n)."""
        if self.Q is not None:
            return np.einsum("bn,nb->b", X, _product(self.Q, X.T))
        assert self.A is not None
        projected = _product(self.A, X.T)
        return np.einsum("mb,mb->b", projected, projected) + X @ self.linear

    def fields(self, X: Array) -> Array:
        """Local fields in float64, shape (batch, n), of float64 states (batch, n)."""
        if self.Q is not None:
            return self.diagonal() * (1 - 2 * X) + 2 * _product(self.Q, X.T).T
        assert self.A is not None
        assert self.linear is not None
        squares = self.diagonal() - self.linear
        coupled = 2 * _product(self.A.T, _product(self.A, X.T)).T
        return self.linear + squares * (1 - 2 * X) + coupled


def _peak(values: Array) -> float:
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def _product(matrix: Array, X: Array) -> Array:
    """``matrix @ X`` in float64, converting ``matrix`` piece by piece to bound memory."""
    rows, columns = matrix.shape
    if matrix.dtype == np.float64 or rows * columns <= _CHUNK:
        return matrix.astype(np.float64, copy=False) @ X
    if matrix.flags.c_contiguous:
        result = np.empty((rows, X.shape[1]))
        step = max(1, _CHUNK // max(columns, 1))
        for r in range(0, rows, step):
            np.matmul(matrix[r : r + step].astype(np.float64), X, out=result[r : r + step])
    else:
        result = np.zeros((rows, X.shape[1]))
        step = max(1, _CHUNK // max(rows, 1))
        for c in range(0, columns, step):
            result += matrix[:, c : c + step].astype(np.float64) @ X[c : c + step]
    return result
