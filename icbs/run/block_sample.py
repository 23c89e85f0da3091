"""Selection of the blocks to save: every N-th, or a sample spread over layers and passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def every_nth(n: int, first: int, count: int) -> list[int]:
    """Return the positions, among some consecutive blocks, of the blocks 0, n, 2n, … of the run.

    Parameters
    ----------
    n : int
    first : int
        Number of the first of the blocks, from the beginning of the run.
    count : int
        Number of blocks.
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
    """Return the positions of the blocks of a pass that belong to a sample; deterministic.

    The sample is divided equally between the passes; a small one includes the first and the
    last pass. Within a pass, layers with the fewest blocks in the sample come first. Ties are
    broken by the van der Corput sequence of the depth: the first layer, one from the middle,
    then from the quarters.

    Parameters
    ----------
    size : int
        Number of blocks in the sample.
    step, passes : int
        Number of the pass, from 0, and number of passes of the run.
    blocks : sequence of (str, int)
        Name and depth (index of the first layer) of each block of the pass.
    saved : Counter of str
        Number of blocks saved so far, by name.
    """
    wanted = _share(size, step, passes) - saved.total()
    order = sorted(
        range(len(blocks)), key=lambda i: (saved[blocks[i][0]], _bits_reversed(blocks[i][1]))
    )
    return sorted(order[: max(wanted, 0)])


def _share(size: int, step: int, passes: int) -> int:
    """Return the number of blocks of a sample in the passes 0 … ``step``."""
    if step + 1 >= passes:
        return size
    if size > passes:
        return -(-(step + 1) * size // passes)
    return step * (size - 1) // (passes - 1) + 1


def _bits_reversed(number: int) -> int:
    return int(f"{number:032b}"[::-1], 2)
