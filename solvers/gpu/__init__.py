"""Swap tabu search on a GPU: one program for each (block, replica), hundreds in one launch.

**A step** is one swap. The two sides alternate in choosing their best variable p (the one that
leaves with the highest field, or enters with the lowest). p is flipped, after which the fields
include its couplings, and the best free variable q of the other side follows. So a step evaluates
every partner of p exactly and reads only two rows of the matrix: on real blocks it gains as much
per swap as the exact best of 16 × 16 candidates, which would read 256 scattered words more. Both
variables are then tabu. After ``stall`` swaps without a better state, a program returns to its
best state, which is stored with its fields, and leaves it by a few swaps of random variables.

**Registers** hold the fields and the tabu tags (which include x), 8 to 32 slots of each per
thread (:func:`solvers.gpu.batch.default_warps`), so that several programs share a multiprocessor
and hide each other's memory latency. The matrix is read in coalesced rows.

**Factored problems** are multiplied out on the device, one matrix product each. Storing
``s = Ax`` and computing ``Aᵀ(a_j - a_i)`` for each swap would read m·n words instead of 2n, a
hundred times more at m = 200, and so would forming single rows on demand. The product of 0.4
GFLOP at n = 1024 takes about as long as the 3000 swaps of a search, which are limited by memory
bandwidth: it doubles the time, while the alternative multiplies it by a hundred. Problems that
are too large to be multiplied out, or for the registers of one program, are searched in working
sets (:mod:`solvers.gpu.large`), without forming ``Q``.

**Groups** are contiguous (:class:`solvers.gpu.layout.SlotLayout`); p is chosen by its gain with
the best partner of its own group, found by a scan over the groups, and q in p's group.

**Blocks of different sizes** share a launch if they have the same padded size; each program finds
its matrix through a table of addresses, so that matrices are not copied into one batch.
"""

from solvers.gpu.device import GpuFallbackWarning
from solvers.gpu.solver import AnnealGpu

__all__ = ["AnnealGpu", "GpuFallbackWarning"]
