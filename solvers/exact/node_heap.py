"""Heap of the open nodes of a branch and bound, ordered by bound.

``heap[:open]`` contains the slots of the open nodes, a binary heap on ``bounds``; the rest of
``heap`` contains the free slots.
"""

from __future__ import annotations

from solvers._numba import Array, jit


@jit
def pop(heap: Array, bounds: Array, position: int, count: int) -> int:
    """Remove the node at a position of a heap of ``count``; its slot becomes the first free one."""
    slot = heap[position]
    last = count - 1
    heap[position] = heap[last]
    heap[last] = slot
    if position < last:
        sift_down(heap, bounds, position, last)
        sift_up(heap, bounds, position)
    return int(slot)


@jit
def sift_up(heap: Array, bounds: Array, i: int) -> None:
    """Restore the order from position ``i`` towards the root."""
    while i and bounds[heap[i]] < bounds[heap[(i - 1) // 2]]:
        parent = (i - 1) // 2
        heap[i], heap[parent] = heap[parent], heap[i]
        i = parent


@jit
def sift_down(heap: Array, bounds: Array, i: int, count: int) -> None:
    """Restore the order from position ``i`` towards the leaves."""
    while 2 * i + 1 < count:
        child = 2 * i + 1
        if child + 1 < count and bounds[heap[child + 1]] < bounds[heap[child]]:
            child += 1
        if bounds[heap[i]] <= bounds[heap[child]]:
            return
        heap[i], heap[child] = heap[child], heap[i]
        i = child


@jit
def deepest(heap: Array, free: Array, count: int) -> int:
    """Return the position of the open node with the fewest free variables."""
    where = 0
    for p in range(1, count):
        if free[heap[p]] < free[heap[where]]:
            where = p
    return where
