"""Swap tabu search on a GPU: one program for each (block, replica), hundreds in one launch.

**A step** is one swap. The two sides take turns to name their best variable p (the one that
leaves with the highest field, or enters with the lowest); p is flipped, by which the fields
come to hold its coupling with everything; the best free variable q of the other side follows.
So a step judges every partner of p exactly, reads two rows of the matrix, one after the
other, and nothing else: on real blocks it gains as much a swap as the exact best of 16 × 16
candidates does, which would read 256 scattered words more. Both then rest (tabu). After
``stall`` swaps without a better state a program goes back to its best one, which it keeps
with its fields, and leaves it by a few swaps of random variables.

**On chip** lie the fields and the tabu marks (which hold x too), in registers, 8 to 32 slots
of each a thread (:func:`solvers.gpu.batch.default_warps`), so that several programs share a
multiprocessor and one's arithmetic hides another's wait for memory. The matrix streams past
in coalesced rows.

**Factored problems** are multiplied out on the device, one matrix product each. Keeping
``s = Ax`` and reading ``Aᵀ(a_j - a_i)`` for each swap would read m·n words in place of 2n, a
hundred times more at m = 200, and so would forming single rows on demand. The product of
0.4 GFLOP at n = 1024 takes a full card about as long as the 3000 swaps of a search do at the
limit of its memory: it doubles the time, where the other way multiplies it by a hundred.
What is too large to be multiplied out, or for the registers of one program, is searched in
working sets (:mod:`solvers.gpu.large`), which never form ``Q``.

**Groups** sit side by side (:class:`solvers.gpu.layout.SlotLayout`); p is chosen by what it gains
with the best partner of its own group, found by a scan over the groups, and q in p's group.

**Blocks of different sizes** share a launch when they share the padded size; each program
finds its matrix through a table of addresses, so that no batch is copied together.
"""

from solvers.gpu.device import GpuFallbackWarning
from solvers.gpu.solver import AnnealGpu

__all__ = ["AnnealGpu", "GpuFallbackWarning"]
