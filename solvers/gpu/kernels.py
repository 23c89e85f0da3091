"""Triton kernels to recompute fields, find the best swap, and apply a swap.

A *program* is one (block, replica). Kernels find a program's matrix through a table of addresses,
so that blocks in different tensors and of different sizes share a launch; its vectors are rows of
padded state tensors with N slots each (a power of two). Imported only when a search runs.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (Triton interprets annotations itself.)

from __future__ import annotations

import triton
import triton.language as tl

#: A release step that is never reached: padding is always tabu. Tags are 2·release + x.
NEVER = tl.constexpr(2**30 - 1)


@triton.jit
def matrix_row(matrix, i, n, v, EVEN: tl.constexpr, ALIGNED: tl.constexpr):
    """Load row i of an n × n matrix, with a zero on the diagonal."""
    start = i.to(tl.int64) * n
    if ALIGNED:
        start = tl.multiple_of(start, 4)
    if EVEN:
        row = tl.load(matrix + start + v)
    else:
        row = tl.load(matrix + start + v, mask=v < n, other=0.0)
    return tl.where(v == i, 0.0, row)


@triton.jit
def open_matrix(matrices, sizes, program, real: tl.constexpr, ALIGNED: tl.constexpr):
    """Return a program's matrix and size; ALIGNED means 16-byte alignment and n = 0 mod 4."""
    n = tl.load(sizes + program)
    matrix = tl.load(matrices + program).to(tl.pointer_type(real))
    if ALIGNED:
        n = tl.multiple_of(n, 4)
        matrix = tl.multiple_of(matrix, 16)
    return matrix, n


@triton.jit
def refresh(
    matrices,
    sizes,
    tags,
    fields,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Recompute ``f_i = Q_ii + 2 Σ_{j≠i} Q_ij x_j``, summed in float64.

    One instance for each program and COLUMNS fields; rows with x = 0 are not read.
    """
    program = tl.program_id(0)
    real = fields.dtype.element_ty
    matrix, n = open_matrix(matrices, sizes, program, real, ALIGNED)
    tags += program.to(tl.int64) * N
    v = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], tl.float64)
    for first in range(0, n, ROWS):
        u = first + tl.arange(0, ROWS)
        inside = u < n
        x = tl.load(tags + u, mask=inside, other=0) & 1
        rows = matrix + u.to(tl.int64)[:, None] * n + v[None, :]
        wanted = (x == 1)[:, None] & inside[:, None] & (v < n)[None, :]
        total += tl.load(rows, mask=wanted, other=0.0).to(tl.float64)
    x = tl.load(tags + v, mask=v < n, other=0) & 1
    own = tl.load(matrix + v.to(tl.int64) * (n + 1), mask=v < n, other=0.0).to(tl.float64)
    value = own + 2 * (tl.sum(total, 0) - x.to(tl.float64) * own)
    tl.store(fields + program.to(tl.int64) * N + v, value.to(real), mask=v < N)


@triton.jit(do_not_specialize=["tiles"])
def best_swap(
    matrices,
    sizes,
    groups,
    fields,
    tags,
    running,
    changes,
    leaving,
    entering,
    tiles,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPED: tl.constexpr,
    EVEN: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Find the best of all swaps whose leaving variable is in a tile of ROWS rows.

    One instance for each program and tile; writes its change and the pair to (P, tiles).
    """
    program = tl.program_id(0)
    tile = tl.program_id(1)
    if tl.load(running + program) == 0:
        return
    matrix, n = open_matrix(matrices, sizes, program, fields.dtype.element_ty, ALIGNED)
    v = tl.arange(0, N)
    base = program.to(tl.int64) * N
    tag = tl.load(tags + base + v)
    f = tl.load(fields + base + v)
    none = float("inf")
    enter = tl.where(((tag & 1) == 0) & (v < n), f, none)
    if GROUPED:
        label = tl.load(groups + base + v)
    least = tl.full((), none, f.dtype)
    least_i = tile * 0
    least_j = tile * 0
    for row in range(ROWS):
        i = tile * ROWS + row
        if (tl.load(tags + base + i, mask=i < N, other=0) & 1) == 1:
            value = enter - 2 * matrix_row(matrix, i, n, v, EVEN, ALIGNED)
            if GROUPED:
                value = tl.where(label == tl.load(groups + base + i), value, none)
            lowest = tl.min(value, 0)
            change = lowest - tl.load(fields + base + i)
            if change < least:
                least = change
                least_i = i
                least_j = tl.min(tl.where(value == lowest, v, N - 1), 0)
    at = program * tiles + tile
    tl.store(changes + at, least)
    tl.store(leaving + at, least_i)
    tl.store(entering + at, least_j)


@triton.jit
def swap(
    matrices,
    sizes,
    fields,
    tags,
    running,
    leaving,
    entering,
    N: tl.constexpr,
    EVEN: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Apply one swap to every program that is running."""
    program = tl.program_id(0)
    if tl.load(running + program) == 0:
        return
    matrix, n = open_matrix(matrices, sizes, program, fields.dtype.element_ty, ALIGNED)
    v = tl.arange(0, N)
    at = program.to(tl.int64) * N + v
    i = tl.load(leaving + program)
    j = tl.load(entering + program)
    f = tl.load(fields + at)
    f += 2 * matrix_row(matrix, j, n, v, EVEN, ALIGNED)
    f -= 2 * matrix_row(matrix, i, n, v, EVEN, ALIGNED)
    tl.store(fields + at, f)
    tag = tl.load(tags + at)
    tag = tl.where(v == i, 0, tl.where(v == j, 1, tag))
    tl.store(tags + at, tag)
