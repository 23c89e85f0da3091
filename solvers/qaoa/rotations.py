"""Pairs of states that the gates of a mixer rotate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.qaoa.space import Block, Keys, Space

#: Unsigned, so that kernels need no check for indices from the end.
Positions = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Rotations:
    """Pairs of states, as products of pairs of rows and pairs of columns of the space's blocks.

    Part t rotates the states at ``rows[r, 0] + columns[c, 0]`` and ``rows[r, 1] + columns[c, 1]``
    for r and c in its ranges.
    """

    parts: Positions
    """For each part: range of rows, range of columns, number of the gate; shape (parts, 5)."""
    rows: Positions
    """Positions of the first states of two rows, shape (row pairs, 2)."""
    columns: Positions
    """Shape (column pairs, 2)."""


def exchanges(space: Space, pairs: Iterable[tuple[int, int]]) -> Rotations:
    """Return, for each pair of variables, the pairs of states that differ by exchanging them."""
    build = _Builder(space)
    for i, j in pairs:
        build.exchange(i, j)
    return build.rotations()


def flips(space: Space) -> Rotations:
    """Return, for each variable, the pairs of states that differ only in it, the 0 first."""
    build = _Builder(space)
    for variable in range(len(space.order)):
        build.flip(variable)
    return build.rotations()


class _Lists:
    """Lists of pairs, one after another; each is made once."""

    def __init__(self) -> None:
        self.lists: list[Keys] = [np.zeros((0, 2), dtype=np.int64)]
        self.ranges: dict[tuple[object, ...], tuple[int, int]] = {}
        self.length = 0

    def range(self, name: tuple[object, ...], make: Callable[[], Keys]) -> tuple[int, int]:
        """Return the range of a list, which is made at the first call."""
        if name not in self.ranges:
            self.lists.append(make())
            begin, self.length = self.length, self.length + len(self.lists[-1])
            self.ranges[name] = begin, self.length
        return self.ranges[name]


class _Builder:
    """Rows, columns, and the parts made of them."""

    def __init__(self, space: Space) -> None:
        self.blocks, self.cut = space.blocks, space.cut
        self.place = np.argsort(space.order).tolist()
        self.rows, self.columns = _Lists(), _Lists()
        self.parts: list[tuple[int, ...]] = []
        self.gates = 0

    def exchange(self, i: int, j: int) -> None:
        """Add the gate that exchanges variables i and j."""
        a, b = sorted((self.place[i], self.place[j]))
        for number, block in enumerate(self.blocks):
            if b < self.cut:
                self._rotate_rows(number, block, 1 << a, 1 << b)
            elif a >= self.cut:
                self._rotate_columns(number, block, 1 << (a - self.cut), 1 << (b - self.cut))
            elif number + 1 < len(self.blocks):
                self._rotate_both(number, block, self.blocks[number + 1], a, b - self.cut)
        self.gates += 1

    def flip(self, variable: int) -> None:
        """Add the gate that flips a variable."""
        at = self.place[variable]
        for number, block in enumerate(self.blocks):
            if at < self.cut:
                self._rotate_rows(number, block, 0, 1 << at)
            else:
                self._rotate_columns(number, block, 0, 1 << (at - self.cut))
        self.gates += 1

    def rotations(self) -> Rotations:
        """Return all gates."""
        parts = np.array(self.parts, dtype=np.uint64).reshape(-1, 5)
        rows, columns = (np.concatenate(held.lists) for held in (self.rows, self.columns))
        return Rotations(parts, rows.astype(np.uint64), columns.astype(np.uint64))

    def _rotate_rows(self, number: int, block: Block, lost: int, gained: int) -> None:
        rows = self.rows.range(
            (number, lost, gained),
            lambda: _row_starts(_moved(block.first, block.first, lost, gained), block, block),
        )
        self._add(rows, self.columns.range((number,), lambda: _same(len(block.second))))

    def _rotate_columns(self, number: int, block: Block, lost: int, gained: int) -> None:
        columns = self.columns.range(
            (number, lost, gained), lambda: _moved(block.second, block.second, lost, gained)
        )
        rows = self.rows.range(
            (number,), lambda: _row_starts(_same(len(block.first)), block, block)
        )
        self._add(rows, columns)

    def _rotate_both(self, number: int, block: Block, following: Block, a: int, b: int) -> None:
        """Move a one from qubit b of the second half to qubit a of the first."""
        rows = self.rows.range(
            (number, 0, 1 << a, "next"),
            lambda: _row_starts(_moved(block.first, following.first, 0, 1 << a), block, following),
        )
        columns = self.columns.range(
            (number, 1 << b, 0, "next"), lambda: _moved(block.second, following.second, 1 << b, 0)
        )
        self._add(rows, columns)

    def _add(self, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        if rows[0] < rows[1] and columns[0] < columns[1]:
            self.parts.append((*rows, *columns, self.gates))


def _moved(here: Keys, there: Keys, lost: int, gained: int) -> Keys:
    """Pair patterns with those that have the bit ``gained`` instead of ``lost``; 0 stands for none.

    Returns their positions in both lists, shape (pairs, 2).
    """
    chosen = np.flatnonzero((here & (lost | gained)) == lost)
    partners = np.searchsorted(there, here[chosen] ^ (lost | gained))
    return np.stack([chosen, partners], axis=1).astype(np.int64)


def _same(count: int) -> Keys:
    """Pair each of ``count`` positions with itself."""
    return np.repeat(np.arange(count, dtype=np.int64)[:, None], 2, axis=1)


def _row_starts(rows: Keys, left: Block, right: Block) -> Keys:
    """Return the positions of the first states of pairs of rows of two blocks."""
    offsets = np.array([left.offset, right.offset])
    return offsets + rows * np.array([len(left.second), len(right.second)])
