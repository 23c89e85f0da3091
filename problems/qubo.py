"""The cardinality-constrained QUBO, dense or factored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.checks import as_array, coefficients, constraint, symmetric
from problems.errors import InvalidProblemError

Array = npt.NDArray[Any]

#: Entries converted to float64 at a time when an energy is evaluated (32 MiB).
_CHUNK = 1 << 22


class CardinalityQUBO:
    """Minimise ``xᵀQx + offset`` over ``x ∈ {0,1}ⁿ`` with ``Σx = k``.

    ``x[i] = 1`` means "weight i is pruned" (iCBS, arXiv 2411.17796, section 3). ``Q`` is
    symmetric, both triangles count, and the linear terms lie on its diagonal. Blocks that
    come from per-sample gradients have a curvature of low rank, and are best given as
    factors (:meth:`from_factors`), which are never multiplied out.

    Parameters
    ----------
    Q : array_like or torch.Tensor, shape (n, n)
        Symmetric coefficients; float32 and float64 are kept, integers become float64,
        half precision becomes float32. The array is not copied where that can be helped.
    k : int or sequence of int
        How many variables are 1; one number for each group when ``groups`` is given.
    groups : array_like of int, shape (n,), optional
        The group of each variable, ``0 … len(k) - 1``; each group holds its own ``k``
        (one group per output row, or per N:M run). One group of all when omitted.
    offset : float, default 0
        Constant added to every energy.

    Raises
    ------
    InvalidProblemError
        Wrong shape or dtype, non-finite or asymmetric coefficients, ``k`` out of range.

    Examples
    --------
    >>> p = CardinalityQUBO([[1.0, -2.0], [-2.0, 3.0]], k=1)
    >>> p.energy([1, 0])
    1.0
    """

    def __init__(
        self,
        Q: Any,
        k: int | Sequence[int] | Array,
        *,
        groups: Any = None,
        offset: float = 0.0,
    ) -> None:
        matrix = coefficients(Q, "Q", ndim=2)
        if matrix.shape[0] != matrix.shape[1]:
            raise InvalidProblemError(f"Q has shape {matrix.shape}; it must be square, (n, n)")
        self._Q: Array | None = symmetric(matrix)
        self._A: Array | None = None
        self._linear: Array | None = None
        self._set_constraint(matrix.shape[0], k, groups, offset)

    @classmethod
    def from_factors(
        cls,
        A: Any,
        linear: Any,
        k: int | Sequence[int] | Array,
        *,
        groups: Any = None,
        offset: float = 0.0,
    ) -> CardinalityQUBO:
        """Build the problem with ``Q = AᵀA + diag(linear)`` without forming ``Q``.

        Parameters
        ----------
        A : array_like or torch.Tensor, shape (m, n)
            Factor of the curvature, one row a sample; m = 0 leaves a linear problem.
        linear : array_like or torch.Tensor, shape (n,)
            Linear coefficients besides the diagonal of ``AᵀA``; kept in float64.
        k, groups, offset
            As for the class.

        Raises
        ------
        InvalidProblemError
            As for the class, or ``A`` and ``linear`` of different n.
        """
        factor = coefficients(A, "A", ndim=2)
        vector = coefficients(linear, "linear", ndim=1).astype(np.float64, copy=False)
        if factor.shape[1] != vector.shape[0]:
            raise InvalidProblemError(
                f"A has {factor.shape[1]} columns but linear has {vector.shape[0]} entries; "
                "both must be n"
            )
        self = cls.__new__(cls)
        self._Q, self._A, self._linear = None, factor, vector
        self._set_constraint(factor.shape[1], k, groups, offset)
        return self

    def _set_constraint(self, n: int, k: Any, groups: Any, offset: float) -> None:
        self.n = n
        self.groups, self.cardinalities = constraint(n, k, groups)
        try:
            self.offset = float(offset)
        except (TypeError, ValueError):
            raise InvalidProblemError(f"offset is {offset!r}; it must be a number") from None
        if not np.isfinite(self.offset):
            raise InvalidProblemError(f"offset is {self.offset}; it must be finite")

    # -- what it holds ------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Total number of variables that are 1, over all groups."""
        return int(self.cardinalities.sum())

    @property
    def num_groups(self) -> int:
        """Number of disjoint groups with a cardinality of their own."""
        return len(self.cardinalities)

    @property
    def is_factored(self) -> bool:
        """Whether the problem is held as ``A`` and ``linear`` rather than ``Q``."""
        return self._Q is None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of ``Q`` or ``A``: float32 or float64."""
        return (self._A if self._Q is None else self._Q).dtype  # type: ignore[union-attr]

    @property
    def A(self) -> Array:
        """The factor, shape (m, n).

        Raises
        ------
        InvalidProblemError
            If the problem is held densely.
        """
        if self._A is None:
            raise InvalidProblemError("this problem is dense and has no factor A; use Q")
        return self._A

    @property
    def linear(self) -> Array:
        """Linear terms besides the diagonal of ``AᵀA``, float64, shape (n,); see :attr:`A`."""
        if self._linear is None:
            raise InvalidProblemError("this problem is dense; its linear terms are Q's diagonal")
        return self._linear

    @cached_property
    def Q(self) -> Array:
        """The matrix, shape (n, n); formed (and kept) on first use if held as factors."""
        if self._Q is not None:
            return self._Q
        Q = self.A.T @ self.A
        Q[np.diag_indices(self.n)] += self.linear.astype(Q.dtype)
        return Q

    @cached_property
    def diagonal(self) -> Array:
        """Diagonal of ``Q`` in float64, shape (n,)."""
        if self._Q is not None:
            return self._Q.diagonal().astype(np.float64)
        return np.einsum("ij,ij->j", self.A, self.A, dtype=np.float64) + self.linear

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of coefficients, groups, cardinalities and offset."""
        digest = hashlib.sha256()
        parts = (self._Q, self._A, self._linear, self.groups, self.cardinalities)
        for part in parts:
            if part is not None:
                digest.update(f"{part.dtype.str}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).data)
        digest.update(np.float64(self.offset).tobytes())
        return digest.hexdigest()

    # -- what it answers ----------------------------------------------------------------

    def energy(self, x: Any) -> Any:
        """Energy ``xᵀQx + offset``, evaluated in float64.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,) or (batch, n)
            States; they need not satisfy the cardinality.

        Returns
        -------
        float or ndarray of float64, shape (batch,)

        Raises
        ------
        InvalidProblemError
            Wrong shape, or an entry that is neither 0 nor 1.
        """
        X = self.as_states(x)
        states = np.atleast_2d(X).astype(np.float64)
        if self._Q is None:
            projected = _product(self.A, states.T)
            quadratic = np.einsum("mb,mb->b", projected, projected)
            energies = quadratic + states @ self.linear + self.offset
        else:
            energies = np.einsum("bn,nb->b", states, _product(self._Q, states.T)) + self.offset
        return float(energies[0]) if X.ndim == 1 else energies

    def fields(self, x: Any) -> Array:
        """Local fields ``f_i = Q_ii + 2 Σ_{j≠i} Q_ij x_j`` in float64.

        Setting ``x_i`` from 0 to 1 changes the energy by ``f_i``; from 1 to 0 by ``-f_i``;
        swapping ``i`` out for ``j`` changes it by ``f_j - f_i - 2 Q_ij``.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,)

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        state = self.as_states(x).astype(np.float64)
        if state.ndim != 1:
            raise InvalidProblemError(f"fields takes one state of shape (n,), got {state.shape}")
        if self._Q is not None:
            return self.diagonal * (1 - 2 * state) + 2 * _product(self._Q, state[:, None])[:, 0]
        projected = _product(self.A, state[:, None])
        coupled = 2 * _product(self.A.T, projected)[:, 0]
        squares = self.diagonal - self.linear
        return self.linear + squares * (1 - 2 * state) + coupled

    def is_feasible(self, x: Any) -> Any:
        """Whether each state has the right number of ones in every group.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,) or (batch, n)

        Returns
        -------
        bool or ndarray of bool, shape (batch,)
        """
        X = self.as_states(x)
        counts = self.count(np.atleast_2d(X))
        feasible = (counts == self.cardinalities).all(axis=1)
        return bool(feasible[0]) if X.ndim == 1 else feasible

    def count(self, X: Array) -> Array:
        """Count the ones per group, shape (batch, num_groups), of states (batch, n)."""
        if self.num_groups == 1:
            return X.sum(axis=1, dtype=np.int64)[:, None]
        counts = np.zeros((len(X), self.num_groups), dtype=np.int64)
        for row, state in zip(counts, X, strict=True):
            row += np.bincount(self.groups[state != 0], minlength=self.num_groups)
        return counts

    def as_states(self, x: Any) -> npt.NDArray[np.uint8]:
        """Check states and return them as uint8, shape (n,) or (batch, n).

        Raises
        ------
        InvalidProblemError
            Wrong shape, or an entry that is neither 0 nor 1.
        """
        X = as_array(x, "state")
        if X.ndim not in (1, 2) or X.shape[-1] != self.n:
            raise InvalidProblemError(
                f"state has shape {X.shape}; this problem takes ({self.n},) or (batch, {self.n})"
            )
        if X.dtype.kind not in "biuf" or not ((X == 0) | (X == 1)).all():
            raise InvalidProblemError("a state may hold 0 and 1 only")
        return X.astype(np.uint8)

    # -- files --------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the problem to an ``.npz`` file (no pickle); see :mod:`problems.formats.npz`."""
        from problems.formats.npz import write

        write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> CardinalityQUBO:
        """Read a problem that :meth:`save` wrote.

        Raises
        ------
        FormatError
            If the file is damaged or is not such a file.
        """
        from problems.formats.npz import read

        return read(path)

    def __repr__(self) -> str:
        form = f"rank≤{self.A.shape[0]}" if self.is_factored else "dense"
        groups = f", groups={self.num_groups}" if self.num_groups > 1 else ""
        return f"CardinalityQUBO(n={self.n}, k={self.k}{groups}, {form}, {self.dtype})"


def _product(matrix: Array, X: Array) -> Array:
    """``matrix @ X`` in float64, converting a bounded piece of ``matrix`` at a time."""
    rows, columns = matrix.shape
    if matrix.dtype == np.float64 or rows * columns <= _CHUNK:
        return matrix.astype(np.float64, copy=False) @ X
    result = np.zeros((rows, X.shape[1]))
    if rows <= columns:
        step = max(1, _CHUNK // max(rows, 1))
        for c in range(0, columns, step):
            result += matrix[:, c : c + step].astype(np.float64) @ X[c : c + step]
    else:
        step = max(1, _CHUNK // max(columns, 1))
        for r in range(0, rows, step):
            result[r : r + step] = matrix[r : r + step].astype(np.float64) @ X
    return result
