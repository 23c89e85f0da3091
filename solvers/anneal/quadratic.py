"""The relaxed energy and its gradient, from factors or from a matrix, compiled.

The relaxation of ``xᵀQx`` to ``0 ≤ x ≤ 1`` writes it as ``xᵀCx + linear·x``. With factors
``C = AᵀA``, and the energy is convex. For a matrix ``Q``, the split of the diagonal is arbitrary:
``C`` has the off-diagonal entries of ``Q``, and a chosen diagonal ``curv``. The gradient is
``g = linear + 2Cx``; at a binary state the local field of variable v is ``g_v - C_vv`` where
``x_v = 1`` and ``g_v + C_vv`` where ``x_v = 0``, and swapping i for j changes the energy by
``g_j - g_i + C_ii + C_jj - 2C_ij``.

Kernels take its coefficients as one :class:`Quadratic`, and a point as one :class:`Point`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import DOT_COLUMNS, DOT_ROWS, Real, dots, jit

Array = npt.NDArray[Any]


class Quadratic(NamedTuple):
    """Coefficients of the relaxed energy, by position of the variables."""

    matrix: Array
    """C-contiguous float32, one row per variable: its column of A, shape (n, m) with m padded
    by zeros to whole vectors, if ``factored``; else its row of Q, shape (n, n)."""
    factored: bool
    linear: Array
    """float32, shape (n,)."""
    curv: Array
    """Diagonal of ``C``, float32, shape (n,)."""


class Point(NamedTuple):
    """A point of the relaxation, with the arrays that kernels update along with it."""

    x: Array
    """0 … 1 by position, negative where a position is empty; float32, shape (n,)."""
    s: Array
    """``Ax`` with factors, shape (m,); empty without."""
    g: Array
    """Gradient, float32, shape (n,)."""


@jit
def transpose(A: Array, columns: Array, first: int, last: int) -> None:
    """Copy columns first … last of ``A`` (m, n) to rows of ``columns`` (n, ≥ m)."""
    m = A.shape[0]
    r = 0
    while r + 8 <= m:
        a0, a1, a2, a3 = A[r], A[r + 1], A[r + 2], A[r + 3]
        a4, a5, a6, a7 = A[r + 4], A[r + 5], A[r + 6], A[r + 7]
        for v in range(first, last):
            column = columns[v]
            column[r], column[r + 1], column[r + 2], column[r + 3] = a0[v], a1[v], a2[v], a3[v]
            column[r + 4], column[r + 5], column[r + 6] = a4[v], a5[v], a6[v]
            column[r + 7] = a7[v]
        r += 8
    while r < m:
        for v in range(first, last):
            columns[v, r] = A[r, v]
        r += 1


@jit
def squares(columns: Array) -> Array:
    """Return the squared length of each column."""
    found = np.empty(len(columns), np.float32)
    for v in range(len(columns)):
        column, total = columns[v], np.float32(0)
        for r in range(len(column)):
            total += column[r] * column[r]
        found[v] = total
    return found


@jit
def add_column(column: Array, s: Array, change: Real) -> None:
    """Update ``s = Ax`` for a change of one variable, of the dtype of ``s``."""
    for r in range(len(s)):
        s[r] += change * column[r]


@jit
def add_row(Q: Array, curv: Array, g: Array, v: int, change: Real) -> None:
    """Update the gradient for a change of ``x_v``, of the dtype of ``g``."""
    row = Q[v]
    twice = change + change
    kept = g[v] + twice * curv[v]
    for u in range(len(g)):
        g[u] += twice * row[u]
    g[v] = kept


@jit
def project(columns: Array, x: Array, s: Array, first: int, last: int) -> None:
    """Add the contribution of variables first … last to ``s = Ax``."""
    for v in range(first, last):
        if x[v] > 0:
            add_column(columns[v], s, x[v])


@jit
def gradient(columns: Array, linear: Array, s: Array, g: Array, first: int, last: int) -> None:
    """Compute entries first … last of ``g = linear + 2Aᵀs``."""
    v = first
    while v + 4 <= last:
        c0, c1, c2, c3 = columns[v], columns[v + 1], columns[v + 2], columns[v + 3]
        t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for r in range(len(s)):
            t0 += c0[r] * s[r]
            t1 += c1[r] * s[r]
            t2 += c2[r] * s[r]
            t3 += c3[r] * s[r]
        g[v], g[v + 1] = linear[v] + (t0 + t0), linear[v + 1] + (t1 + t1)
        g[v + 2], g[v + 3] = linear[v + 2] + (t2 + t2), linear[v + 3] + (t3 + t3)
        v += 4
    while v < last:
        column = columns[v]
        total = np.float32(0)
        for r in range(len(s)):
            total += column[r] * s[r]
        g[v] = linear[v] + (total + total)
        v += 1


@jit
def refresh(quadratic: Quadratic, point: Point) -> None:
    """Compute ``s`` and ``g`` from ``x``."""
    matrix, factored, linear, curv = quadratic
    x, s, g = point
    if factored:
        for r in range(len(s)):
            s[r] = 0
        project(matrix, x, s, 0, len(x))
        gradient(matrix, linear, s, g, 0, len(g))
    else:
        for v in range(len(x)):
            g[v] = linear[v]
        for v in range(len(x)):
            if x[v] > 0:
                add_row(matrix, curv, g, v, x[v])


@jit
def squared_length(columns: Array, x: Array) -> float:
    """Compute ``‖Ax‖²`` of a binary state in float64."""
    s, total = np.zeros(columns.shape[1], np.float64), 0.0
    for v in range(len(x)):
        if x[v] > 0:
            column = columns[v]
            for r in range(len(s)):
                s[r] += column[r]
    for r in range(len(s)):
        total += s[r] * s[r]
    return total


@jit
def energy(linear: Array, x: Array, g: Array) -> float:
    """Evaluate the relaxed energy from its gradient."""
    total = 0.0
    for v in range(len(x)):
        total += np.float64(max(x[v], np.float32(0)) * (linear[v] + g[v]))
    return 0.5 * total


@jit
def gradient_at(columns: Array, linear: Array, s: Array, g: Array, chosen: Array) -> None:
    """Compute the chosen entries of ``g = linear + 2Aᵀs``."""
    t = 0
    while t + 4 <= len(chosen):
        v0, v1, v2, v3 = chosen[t], chosen[t + 1], chosen[t + 2], chosen[t + 3]
        c0, c1, c2, c3 = columns[v0], columns[v1], columns[v2], columns[v3]
        t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for r in range(len(s)):
            t0 += c0[r] * s[r]
            t1 += c1[r] * s[r]
            t2 += c2[r] * s[r]
            t3 += c3[r] * s[r]
        g[v0], g[v1] = linear[v0] + (t0 + t0), linear[v1] + (t1 + t1)
        g[v2], g[v3] = linear[v2] + (t2 + t2), linear[v3] + (t3 + t3)
        t += 4
    while t < len(chosen):
        gradient(columns, linear, s, g, chosen[t], chosen[t] + 1)
        t += 1


@jit
def gram(quadratic: Quadratic, chosen: Array, C: Array) -> None:
    """Form ``C`` on the chosen variables, whose number is a multiple of 8."""
    matrix, curv = quadratic.matrix, quadratic.curv
    size = len(chosen)
    if quadratic.factored:
        for i in range(0, size, DOT_ROWS):
            for j in range(i, size, DOT_COLUMNS):
                dots(matrix, chosen, i, chosen, j, C)
        for i in range(size):
            for j in range(i):
                C[i, j] = C[j, i]
    else:
        for i in range(size):
            row = matrix[chosen[i]]
            for j in range(size):
                C[i, j] = row[chosen[j]]
            C[i, i] = curv[chosen[i]]


@jit
def apply_change(quadratic: Quadratic, point: Point, chosen: Array, change: Array) -> None:
    """Update ``s`` (with factors) or ``g`` for a change of the chosen variables."""
    matrix, factored, _, curv = quadratic
    for t in range(len(chosen)):
        if change[t] != 0:
            if factored:
                add_column(matrix[chosen[t]], point.s, change[t])
            else:
                add_row(matrix, curv, point.g, chosen[t], change[t])
