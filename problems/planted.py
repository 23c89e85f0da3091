"""Benchmark problems of any size with an optimum known by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from problems.errors import InvalidProblemError
from problems.qubo import CardinalityQUBO

Vector = npt.NDArray[np.float64]

#: Largest tile; its 2 to this power states are enumerated in an array.
_LARGEST_TILE = 16


@dataclass(frozen=True)
class Planted:
    """A problem, an optimal state of it, and their energy."""

    problem: CardinalityQUBO
    x: npt.NDArray[np.uint8]
    """An optimum, shape (n,)."""
    energy: float


def planted(n: int, k: int, rank: int, *, slope: float = 0.1, seed: int = 0) -> Planted:
    """Plant an optimum in a convex problem of low rank.

    ``E(x) = ‖A(x - x*)‖² + c·(x - x*)``, where c ≤ 0 on the ones of x* and c ≥ 0 elsewhere: both
    terms are at least 0 on feasible states, and 0 at x*, which is therefore also the optimum of
    the convex relaxation.

    Parameters
    ----------
    n, k : int
        Variables and cardinality.
    rank : int
        Rows of A.
    slope : float, default 0.1
        Size of c relative to the diagonal of AᵀA; with 0, only the couplings determine the optimum.
    seed : int

    Returns
    -------
    Planted
        The problem is factored, float32; the energy of the optimum is 0 up to rounding.
    """
    if not (0 <= k <= n and rank >= 1 and n >= 1):
        raise InvalidProblemError(f"n = {n}, k = {k}, rank = {rank}; need 0 ≤ k ≤ n and rank ≥ 1")
    rng = np.random.default_rng(seed)
    A = (rng.normal(size=(rank, n)) / math.sqrt(rank)).astype(np.float32)
    x = np.zeros(n, np.uint8)
    x[rng.permutation(n)[:k]] = 1
    c = slope * rng.random(n) * np.where(x == 1, -1.0, 1.0)
    wide = A.astype(np.float64)
    there = wide @ x
    linear = c - 2 * (wide.T @ there)
    offset = float(there @ there) - float(c @ x)
    problem = CardinalityQUBO.from_factors(A, linear, k, offset=offset)
    return Planted(problem, x, problem.energy(x))


def tiled(n: int, k: int, *, tile: int = 12, rank: int = 4, seed: int = 0) -> Planted:
    """Compose a problem of small tiles, whose optima for every cardinality are enumerated.

    Tiles don't couple, but share the cardinality: the optimum is the best distribution of k ones
    over the tiles, found by dynamic programming (a min-plus convolution). Unlike that of
    :func:`planted`, the relaxation's optimum is fractional.

    Parameters
    ----------
    n, k : int
        Variables and cardinality; the last tile may be smaller.
    tile : int, default 12
        Variables of a tile, at most 16.
    rank : int, default 4
        Rows of A for each tile.
    seed : int

    Returns
    -------
    Planted
        The problem is factored, float32, its variables shuffled.
    """
    if not (0 <= k <= n and n >= 1 and 1 <= tile <= _LARGEST_TILE and rank >= 1):
        raise InvalidProblemError(
            f"n = {n}, k = {k}, tile = {tile}, rank = {rank}; need 0 ≤ k ≤ n, 1 ≤ tile ≤ "
            f"{_LARGEST_TILE}, rank ≥ 1"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    starts = range(0, n, tile)
    A = np.zeros((rank * len(starts), n), np.float32)
    linear = np.empty(n)
    tables: list[tuple[Vector, npt.NDArray[np.uint8]]] = []
    for t, first in enumerate(starts):
        size = min(tile, n - first)
        part = rng.normal(size=(rank, size)).astype(np.float32)
        own = -np.square(part, dtype=np.float64).sum(axis=0) * rng.uniform(0.5, 1.5, size)
        members = order[first : first + size]
        A[t * rank : (t + 1) * rank, members] = part
        linear[members] = own
        tables.append(_best_by_count(part.astype(np.float64), own))
    energy, counts = _distribute(tables, k)
    x = np.zeros(n, np.uint8)
    for first, (_, states), count in zip(starts, tables, counts, strict=True):
        x[order[first : first + states.shape[1]]] = states[count]
    return Planted(CardinalityQUBO.from_factors(A, linear, k), x, energy)


def _best_by_count(A: Vector, linear: Vector) -> tuple[Vector, npt.NDArray[np.uint8]]:
    """Find the least energy and its state for each number of ones, by enumeration."""
    size = A.shape[1]
    numbers = np.arange(1 << size, dtype=np.uint32)
    states = (numbers[:, None] >> np.arange(size, dtype=np.uint32) & 1).astype(np.uint8)
    wide = states.astype(np.float64)
    energies = np.square(wide @ A.T).sum(axis=1) + wide @ linear
    ones = states.sum(axis=1)
    order = np.lexsort((energies, ones))
    first = np.searchsorted(ones[order], np.arange(size + 1))
    return energies[order[first]], states[order[first]]


def _distribute(
    tables: list[tuple[Vector, npt.NDArray[np.uint8]]], k: int
) -> tuple[float, list[int]]:
    """Choose the number of ones of each tile, ``k`` in all, for the least sum of energies."""
    least = np.array([0.0])
    choices = []
    for energies, _ in tables:
        reach = min(k, len(least) + len(energies) - 2)
        sums = np.full((len(energies), reach + 1), np.inf)
        for count, energy in enumerate(energies[: reach + 1]):
            kept = least[: reach + 1 - count]
            sums[count, count : count + len(kept)] = kept + energy
        choices.append(sums.argmin(axis=0))
        least = sums.min(axis=0)
    counts, left = [], k
    for choice in reversed(choices):
        counts.append(int(choice[left]))
        left -= counts[-1]
    return float(least[k]), counts[::-1]
