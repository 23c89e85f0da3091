"""Basis states that a circuit reaches, in two halves of the qubits.

A register of n qubits is cut into halves. Those states in which the first half holds v ones of the
group that the cut splits are all combinations of a pattern of the first half and one of the
second: a block of the shape (first patterns, second patterns). All feasible states are at most
min(k, n/2) + 1 such blocks, so that neither the states nor the pairs that a gate rotates have to
be listed: both are products of lists of about ``2^(n/2)`` entries. In the amplitudes of a block, a
pair of qubits of the first half rotates whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.base import State
from solvers.errors import UnsupportedError

Keys = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]

#: Largest number of states that is simulated: 64 MiB of amplitudes.
MAX_STATES = 1 << 22
#: Largest number of qubits in a half, whose patterns are integers of 64 bits.
_WIDEST = 62


@dataclass(frozen=True)
class Block:
    """States that are combinations of a pattern of each half."""

    first: Keys
    """Patterns of the first half, ascending; bit t is qubit ``order[t]``."""
    second: Keys
    """Patterns of the second half, ascending; bit t is qubit ``order[cut + t]``."""
    offset: int
    """Position of the block's first state."""

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of patterns of both halves."""
        return len(self.first), len(self.second)


@dataclass(frozen=True)
class Space:
    """The states, block by block; within a block, row by row."""

    order: npt.NDArray[np.intp]
    """Variables of the first half, then of the second, shape (n,)."""
    cut: int
    """Number of variables of the first half."""
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """Number of states."""
        last = self.blocks[-1]
        return last.offset + math.prod(last.shape)

    def energies(self, problem: CardinalityQUBO) -> Vector:
        """Evaluate the energies of all states, shape (size,)."""
        Q = problem.float64_matrix()[np.ix_(self.order, self.order)]
        here, there = slice(self.cut), slice(self.cut, None)
        found = np.empty(self.size)
        for block, part in self._parts(found):
            R, C = _bits(block.first, self.cut), _bits(block.second, len(Q) - self.cut)
            np.matmul(2 * (R @ Q[here, there]), C.T, out=part)
            part += ((R @ Q[here, here]) * R).sum(axis=1)[:, None] + problem.offset
            part += ((C @ Q[there, there]) * C).sum(axis=1)
        return found

    def products(self, weights: Vector) -> Vector:
        """Multiply the weights of each state's ones, shape (size,).

        Parameters
        ----------
        weights : ndarray of float64, shape (n,)
            Positive.
        """
        logs, found = np.log(weights)[self.order], np.empty(self.size)
        for block, part in self._parts(found):
            rows = _bits(block.first, self.cut) @ logs[: self.cut]
            part[:] = rows[:, None] + _bits(block.second, len(logs) - self.cut) @ logs[self.cut :]
        return np.exp(found - found.max())

    def position(self, x: State) -> int:
        """Return the position of a state, shape (n,)."""
        ones = x[self.order].astype(np.int64)
        first = int(ones[: self.cut] @ _powers(self.cut))
        second = int(ones[self.cut :] @ _powers(len(ones) - self.cut))
        for block in self.blocks:
            row = int(np.searchsorted(block.first, first))
            column = int(np.searchsorted(block.second, second))
            if first in block.first[row : row + 1] and second in block.second[column : column + 1]:
                return block.offset + row * len(block.second) + column
        raise ValueError(f"state {x.tolist()} is not one of the {self.size} states")

    def states(self, positions: npt.NDArray[np.integer] | None = None) -> State:
        """Return the states at some positions, or all, shape (states, n)."""
        chosen = np.arange(self.size) if positions is None else np.asarray(positions)
        offsets = np.array([block.offset for block in self.blocks])
        which = np.searchsorted(offsets, chosen, side="right") - 1
        found = np.empty((len(chosen), len(self.order)), dtype=np.uint8)
        for number, block in enumerate(self.blocks):
            here = which == number
            row, column = np.divmod(chosen[here] - block.offset, len(block.second))
            halves = (
                _bits(block.first[row], self.cut),
                _bits(block.second[column], len(self.order) - self.cut),
            )
            found[np.ix_(here, self.order)] = np.concatenate(halves, axis=1)
        return found

    def _parts(self, values: Vector) -> Iterator[tuple[Block, Vector]]:
        """Yield each block with its part of ``values``, as a matrix."""
        for block in self.blocks:
            size = math.prod(block.shape)
            yield block, values[block.offset : block.offset + size].reshape(block.shape)


def feasible_space(problem: CardinalityQUBO) -> Space:
    """Return the feasible states of a problem.

    Raises
    ------
    UnsupportedError
        If they are too many.
    """
    count = count_feasible(problem)
    if count > MAX_STATES or problem.n > 2 * _WIDEST:
        raise UnsupportedError(
            f"the problem has n = {problem.n} and {_shown(count)} feasible states, and the "
            f"simulator holds {MAX_STATES:,} and n = {2 * _WIDEST}; choose smaller blocks, or "
            "pass a sampler or a backend"
        )
    order, cut = np.concatenate(problem.group_members), problem.n // 2
    sizes, ones = problem.group_sizes.tolist(), problem.cardinalities.tolist()
    before = np.concatenate([[0], np.cumsum(sizes)])
    split = int(np.searchsorted(before, cut, side="right")) - 1  # the group that the cut splits
    inside = cut - int(before[split])
    groups = list(zip(sizes, ones, strict=True))
    size, k = groups[split]
    blocks: list[Block] = []
    offset = 0
    for v in range(max(0, k - size + inside), min(k, inside) + 1):
        first = _patterns([*groups[:split], (inside, v)])
        second = _patterns([(size - inside, k - v), *groups[split + 1 :]])
        blocks.append(Block(first, second, offset))
        offset += len(first) * len(second)
    return Space(order, cut, tuple(blocks))


def full_space(n: int) -> Space:
    """Return all ``2ⁿ`` states.

    Raises
    ------
    UnsupportedError
        If they are too many.
    """
    if 1 << n > MAX_STATES:
        most = MAX_STATES.bit_length() - 1
        raise UnsupportedError(
            f"the penalty form needs {_shown(1 << n)} states for n = {n}, and the simulator holds "
            f"n = {most}; choose smaller blocks, form='cardinality', or pass a sampler or a backend"
        )
    cut = n // 2
    block = Block(np.arange(1 << cut), np.arange(1 << (n - cut)), 0)
    return Space(np.arange(n), cut, (block,))


def count_feasible(problem: CardinalityQUBO) -> int:
    """Count the feasible states of a problem: ``Π_g C(n_g, k_g)``."""
    pairs = zip(problem.group_sizes.tolist(), problem.cardinalities.tolist(), strict=True)
    return math.prod(math.comb(size, k) for size, k in pairs)


def _patterns(groups: list[tuple[int, int]]) -> Keys:
    """Combine the patterns of groups of (size, ones), the first group in the lowest bits."""
    found, shift = np.zeros(1, dtype=np.int64), 0
    for size, ones in groups:
        found = ((combinations(size, ones) << shift)[:, None] | found).ravel()
        shift += size
    return found


@cache
def combinations(size: int, ones: int) -> Keys:
    """List all patterns of ``size`` bits with the given number of ones, ascending; read-only."""
    if ones in (0, size):
        found = np.array([(1 << ones) - 1], dtype=np.int64)
    else:
        top = np.int64(1) << (size - 1)
        without, with_ = combinations(size - 1, ones), combinations(size - 1, ones - 1)
        found = np.concatenate([without, with_ | top])
    found.flags.writeable = False
    return found


def _powers(size: int) -> Keys:
    return np.int64(1) << np.arange(size, dtype=np.int64)


def _bits(keys: Keys, size: int) -> Vector:
    """Return patterns as rows of 0 and 1 in float64, shape (patterns, size)."""
    return ((keys[:, None] & _powers(size)) != 0).astype(np.float64)


def _shown(count: int) -> str:
    return f"{count:,}" if count < 10**12 else f"10^{math.log10(count):.0f}"
