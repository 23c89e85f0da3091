"""Local search of CBS: swaps of kept and pruned weights that lower the quadratic model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
BLOCK = 256
"""Number of candidates whose columns are gathered at a time."""


class Gradients(Protocol):
    """The matrix G of per-sample gradients, shape (N, n), of all prunable weights."""

    @property
    def count(self) -> int:
        """Number of samples N."""

    def times(self, vector: Float) -> Float:
        """Return ``G v``, shape (N,)."""

    def transposed(self, vector: Float) -> Float:
        """Return ``Gᵀ u``, shape (n,)."""

    def columns(self, index: Index) -> Float:
        """Return columns, shape (N, len(index))."""

    def squares(self) -> Float:
        """Return the sum of the squares of each column, shape (n,)."""


class LocalSearch:
    """One sweep of swaps for ``f(P) = w_Pᵀ H w_P`` with ``H = GᵀG/N + μI``.

    Swapping a pruned weight i for a kept j changes f by ``β_j - α_i - γ_ij`` with
    ``α_i = 2w_i(Hw_P)_i - H_ii w_i²``, ``β_j = 2w_j(Hw_P)_j + H_jj w_j²`` and
    ``γ_ij = 2w_i H_ij w_j`` (arXiv 2203.04466, section 4.1). α and β are kept up to date with the
    swaps of the sweep.

    Parameters
    ----------
    weights : array, shape (n,)
        Dense weights w.
    gradients : Gradients
        At the dense weights.
    ridge : float
        μ.
    tolerance : float
        ε, the least gain of a swap, as a share of f.
    radius : int
        ρ: partners of the pruned weight of rank i are the kept ones of ranks i - ρ … i + ρ - 1.
    failures : int
        τ: a sweep ends after more than τ pruned weights without a partner.
    """

    def __init__(
        self,
        weights: Float,
        gradients: Gradients,
        ridge: float,
        *,
        tolerance: float = 1e-4,
        radius: int = 10,
        failures: int = 20,
    ) -> None:
        self.weights, self.gradients, self.ridge = weights, gradients, ridge
        self.tolerance, self.radius, self.failures = tolerance, radius, failures
        self.diagonal = gradients.squares() / gradients.count + ridge

    def value(self, pruned: npt.NDArray[np.bool_]) -> float:
        """Return ``f(P)``."""
        return self._value(pruned, self.gradients.times(self.weights * pruned))

    def _value(self, pruned: npt.NDArray[np.bool_], residual: Float) -> float:
        squares = float((self.weights[pruned] ** 2).sum())
        return float(residual @ residual) / self.gradients.count + self.ridge * squares

    def sweep(self, pruned: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], int]:
        """Do one sweep.

        Parameters
        ----------
        pruned : array of bool, shape (n,)
            P.

        Returns
        -------
        pruned : array of bool, shape (n,)
            P after the sweep, of the same size.
        swaps : int
            Number of swaps; 0 if no pair that is tried gains enough.
        """
        w, count = self.weights, self.gradients.count
        residual = self.gradients.times(w * pruned)
        product = self.gradients.transposed(residual) / count + self.ridge * w * pruned
        inside, outside = np.flatnonzero(pruned), np.flatnonzero(~pruned)
        alpha = 2 * w[inside] * product[inside] - self.diagonal[inside] * w[inside] ** 2
        inside = inside[np.argsort(-alpha, kind="stable")]
        beta = 2 * w[outside] * product[outside] + self.diagonal[outside] * w[outside] ** 2
        left = _Scaled(self.gradients, w, inside)
        right = _Scaled(self.gradients, w, outside)
        interaction = 2 * w * self.gradients.transposed(left[0].column) / count
        outside = right.order = outside[np.argsort(beta - interaction[outside], kind="stable")]
        least = self.tolerance * self._value(pruned, residual)
        result, swaps, failed = pruned.copy(), 0, 0
        for rank in range(min(len(inside), len(outside))):
            window = range(rank, rank + 1)
            if rank:
                window = range(max(0, rank - self.radius), rank + self.radius)
            partner = self._partner(left[rank], right, window, residual, least, result, outside)
            if partner is None:
                failed += 1
                if rank == 0 or failed > self.failures:
                    break
                continue
            result[inside[rank]], result[outside[partner]] = False, True
            residual += right[partner].column - left[rank].column
            swaps += 1
        return result, swaps

    def _partner(
        self,
        own: _Column,
        right: _Scaled,
        window: range,
        residual: Float,
        least: float,
        result: npt.NDArray[np.bool_],
        outside: Index,
    ) -> int | None:
        """Return the rank of the first kept weight whose swap gains enough."""
        count = self.gradients.count
        alpha = (2 * (own.column @ residual) - own.column @ own.column) / count
        alpha += self.ridge * own.square
        for rank in window:
            if rank >= len(outside) or result[outside[rank]]:
                continue
            other = right[rank]
            beta = (2 * (other.column @ residual) + other.column @ other.column) / count
            beta += self.ridge * other.square
            gamma = 2 * (own.column @ other.column) / count
            if alpha + gamma - beta >= max(least, np.finfo(float).tiny):
                return rank
        return None


@dataclass
class _Column:
    """``w_i G_i``, and ``w_i²``."""

    column: Float
    square: float


class _Scaled:
    """Scaled columns of candidates by rank, gathered a block at a time."""

    def __init__(self, gradients: Gradients, weights: Float, order: Index) -> None:
        self.gradients, self.weights, self.order = gradients, weights, order
        self._blocks: dict[int, Float] = {}

    def __getitem__(self, rank: int) -> _Column:
        number = rank // BLOCK
        if number not in self._blocks:
            part = self.order[number * BLOCK : (number + 1) * BLOCK]
            self._blocks[number] = self.gradients.columns(part) * self.weights[part]
        weight = self.weights[self.order[rank]]
        return _Column(self._blocks[number][:, rank % BLOCK], float(weight**2))
