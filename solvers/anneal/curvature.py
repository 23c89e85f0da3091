"""The relaxed energy and its gradient, from factors or from a matrix.

The relaxation of ``xᵀQx`` to ``0 ≤ x ≤ 1`` writes it as ``xᵀCx + linear·x``. With factors
``C = AᵀA``, and the energy is convex. A matrix does not tell its diagonal's parts:
``C`` takes its off-diagonal entries, and a diagonal, ``curv``, that is chosen. The gradient
is ``g = linear + 2Cx``; at a binary state the local field of variable v is
``g_v - C_vv`` where ``x_v = 1`` and ``g_v + C_vv`` where ``x_v = 0``, so that swapping i
for j changes the energy by ``g_j - g_i + C_ii + C_jj - 2C_ij``.

The kernels take ``matrix``, which is A (m, n) if ``factored``, else Q (n, n).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import TILE_COLUMNS, TILE_ROWS, Real, jit, tile

Array = npt.NDArray[Any]


@jit
def project(A: Array, x: Array, s: Array, first: int, last: int) -> None:
    """Compute rows first … last of ``s = Ax``."""
    for r in range(first, last):
        row = A[r]
        total = np.float32(0)
        for v in range(len(x)):
            total += row[v] * x[v]
        s[r] = total


@jit
def gradient(A: Array, linear: Array, s: Array, g: Array, first: int, last: int) -> None:
    """Compute entries first … last of ``g = linear + 2Aᵀs``."""
    m = A.shape[0]
    part, start = g[first:last], linear[first:last]
    for v in range(len(part)):
        part[v] = start[v]
    r = 0
    while r + 4 <= m:
        s0, s1, s2, s3 = s[r] + s[r], s[r + 1] + s[r + 1], s[r + 2] + s[r + 2], s[r + 3] + s[r + 3]
        a0, a1 = A[r, first:last], A[r + 1, first:last]
        a2, a3 = A[r + 2, first:last], A[r + 3, first:last]
        for v in range(len(part)):
            part[v] += s0 * a0[v] + s1 * a1[v] + s2 * a2[v] + s3 * a3[v]
        r += 4
    while r < m:
        s0 = s[r] + s[r]
        a0 = A[r, first:last]
        for v in range(len(part)):
            part[v] += s0 * a0[v]
        r += 1


@jit
def add_row(Q: Array, curv: Array, g: Array, v: int, change: Real) -> None:
    """Update the gradient for a change of ``x_v``, of the type of ``g``."""
    row = Q[v]
    twice = change + change
    kept = g[v] + twice * curv[v]
    for u in range(len(g)):
        g[u] += twice * row[u]
    g[v] = kept


@jit
def refresh(
    matrix: Array, factored: bool, linear: Array, curv: Array, x: Array, s: Array, g: Array
) -> None:
    """Compute ``s`` and ``g`` from ``x`` (0 … 1, negative where a position is empty)."""
    if factored:
        project(matrix, x, s, 0, len(s))
        gradient(matrix, linear, s, g, 0, len(g))
    else:
        for v in range(len(x)):
            g[v] = linear[v]
        for v in range(len(x)):
            if x[v] > 0:
                add_row(matrix, curv, g, v, x[v])


@jit
def gather(A: Array, chosen: Array, count: int, out: Array) -> None:
    """Copy ``count`` columns of ``A`` into out, shape (m, padded), and clear the rest."""
    for r in range(A.shape[0]):
        source, target = A[r], out[r]
        for t in range(count):
            target[t] = source[chosen[t]]
        for t in range(count, out.shape[1]):
            target[t] = 0


@jit
def gram(
    matrix: Array, factored: bool, curv: Array, chosen: Array, count: int, part: Array, C: Array
) -> None:
    """Form ``C`` on the chosen variables.

    ``C`` has shape (p, p) with p = ``count`` padded to whole tiles; with factors, ``part``
    (m, p) is left holding the columns of ``A``.
    """
    size = len(C)
    if factored:
        gather(matrix, chosen, count, part)
        for i in range(0, size, TILE_ROWS):
            for j in range(i // TILE_COLUMNS * TILE_COLUMNS, size, TILE_COLUMNS):
                tile(part, part, C, i, j)
        for i in range(TILE_COLUMNS, size):
            for j in range(i // TILE_COLUMNS * TILE_COLUMNS):
                C[i, j] = C[j, i]
    else:
        for i in range(size):
            row = matrix[chosen[min(i, count - 1)]]
            for j in range(size):
                C[i, j] = row[chosen[j]] if i < count and j < count else 0
        for i in range(count):
            C[i, i] = curv[chosen[i]]


@jit
def commit(
    matrix: Array,
    factored: bool,
    curv: Array,
    chosen: Array,
    count: int,
    part: Array,
    change: Array,
    s: Array,
    g: Array,
) -> None:
    """Follow a change of the chosen variables: ``s`` with factors, else ``g``."""
    if factored:
        for r in range(len(s)):
            row = part[r]
            total = np.float32(0)
            for t in range(row.shape[0]):
                total += row[t] * change[t]
            s[r] += total
    else:
        for t in range(count):
            if change[t] != 0:
                add_row(matrix, curv, g, chosen[t], change[t])
