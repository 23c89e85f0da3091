"""Which blocks of a run are saved: every N-th, or a sample spread over layers and passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def every_nth(n: int, first: int, count: int) -> list[int]:
    """Return which of ``count`` blocks are saved, where block ``first`` of the run is the first.

    Parameters
    ----------
    n : int
        The blocks 0, n, 2n, … of the run are saved.
    first, count : int
    """
    return list(range(-first % n, count, n))


def sampled(
    size: int,
    *,
    step: int,
    passes: int,
    blocks: Sequence[tuple[str, int]],
    saved: Counter[str],
) -> list[int]:
    """Return which blocks of a pass belong to a sample, which depends on no random number.

    Each pass has its share of the sample (of few blocks the first pass has the first and the
    last pass the last), which goes to the layers that the sample has least of so far. Between
    equals the order is that of the van der Corput sequence: the first layer, one from the
    middle, then from the quarters.

    Parameters
    ----------
    size : int
        Blocks of the whole sample.
    step, passes : int
        The pass, from 0, and how many there will be.
    blocks : sequence of (str, int)
        Name and depth (number of the first layer) of each block of the pass.
    saved : Counter of str
        Blocks saved so far, by name.
    """
    wanted = _share(size, step, passes) - saved.total()
    order = sorted(
        range(len(blocks)), key=lambda i: (saved[blocks[i][0]], _bits_reversed(blocks[i][1]))
    )
    return sorted(order[: max(wanted, 0)])


def _share(size: int, step: int, passes: int) -> int:
    """Blocks of a sample that the passes up to ``step``, inclusive, should have."""
    if step + 1 >= passes:
        return size
    if size > passes:
        return -(-(step + 1) * size // passes)
    return step * (size - 1) // (passes - 1) + 1


def _bits_reversed(number: int) -> int:
    return int(f"{number:032b}"[::-1], 2)
