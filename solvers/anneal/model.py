"""Conversion of problems to the form of the kernels: float32, by position, scaled."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.anneal.layout import EMPTY, LaneLayout
from solvers.anneal.quadratic import Point, Quadratic, refresh, squared_length, squares, transpose
from solvers.anneal.simd import round_up

Array = npt.NDArray[Any]

#: Larger or smaller (inverse) coefficients are scaled, so that squares don't overflow float32.
_FAR = 1e10
#: Number of entries of the factor from which products with it use several threads, and number of
#: variables of each thread's range.
_LARGE, _RANGE = 1 << 25, 1 << 14


@dataclass(frozen=True)
class KernelModel:
    """A problem in the form of the kernels."""

    layout: LaneLayout
    quadratic: Quadratic
    cardinalities: Array
    scale: float
    """Factor of the energies."""
    problem: CardinalityQUBO
    faithful: bool
    """Whether the matrix is the problem's own factor, neither scaled nor rounded."""

    @classmethod
    def of(cls, problem: CardinalityQUBO) -> KernelModel:
        """Convert a problem; arrays that have the right form already are not copied."""
        layout = LaneLayout.of(problem.groups, problem.num_groups)
        k = problem.cardinalities
        if problem.is_factored:
            linear = layout.arrange(_centred(problem.linear, problem))
            A = problem.A
            scale = _scale(max(float(np.abs(linear).max(initial=0)), problem.peaks[0] ** 2))
            columns = _columns(A, layout, np.sqrt(scale))
            faithful = scale == 1 and A.dtype == np.float32
            quadratic = Quadratic(columns, True, _single(linear, scale), squares(columns))
            return cls(layout, quadratic, k, scale, problem, faithful)
        scale = _scale(problem.peaks[0])
        Q = problem.Q
        if layout.order is not None:
            Q = layout.arrange(layout.arrange(Q).T).T
        Q = _single(Q, scale)
        curv = split_diagonal(Q)
        linear = layout.arrange(_centred(problem.diagonal, problem)) * scale - curv
        quadratic = Quadratic(Q, False, linear.astype(np.float32), curv)
        return cls(layout, quadratic, k, scale, problem, False)

    @property
    def factored(self) -> bool:
        """Whether the curvature is given as factors."""
        return self.quadratic.factored

    @property
    def is_large(self) -> bool:
        """Whether products with the factor use several threads."""
        return self.factored and self.quadratic.matrix.size >= _LARGE

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.layout.size

    def allocate(self, x: Array) -> Point:
        """Return a point at ``x`` with ``s`` and ``g`` uninitialised."""
        depth = self.quadratic.matrix.shape[1] if self.factored else 0
        return Point(x, np.zeros(depth, np.float32), np.empty(self.size, np.float32))

    def point(self, x: Array) -> Point:
        """Return the point at ``x``, an array by position that is not copied."""
        point = self.allocate(x)
        refresh(self.quadratic, point)
        return point

    def energy(self, x: Array) -> float:
        """Evaluate the problem's energy of a state by position in float64.

        Faster than the problem's own evaluation if the matrix is the problem's own factor.
        """
        state, problem = self.layout.restore(x), self.problem
        if not self.faithful:
            return float(problem.energy(state))
        curved = squared_length(self.quadratic.matrix, x)
        return float(problem.linear @ state + curved + problem.offset)

    def start(self, state: Array) -> Array:
        """Convert a state by variable (uint8) to positions (float32)."""
        return np.ascontiguousarray(self.layout.arrange(state.astype(np.float32), EMPTY))


def ranges(size: int) -> list[tuple[int, int]]:
    """Divide the positions into ranges, one per task of a thread."""
    edges = [*range(0, size, _RANGE), size]
    return list(pairwise(edges))


def _columns(A: Array, layout: LaneLayout, scale: float) -> Array:
    """Return the columns of A as rows by position, scaled and padded."""
    m, n = A.shape
    depth = round_up(m)
    if scale == 1 and layout.order is None and A.dtype == np.float32:
        if depth == m and A.flags.f_contiguous:
            return A.T
        columns = np.zeros((n, depth), np.float32)
        if A.flags.c_contiguous:
            for first, last in ranges(n):
                transpose(A, columns, first, last)
        else:
            columns[:, :m] = A.T
        return columns
    columns = np.zeros((layout.size, depth), np.float32)
    if layout.order is None:
        np.multiply(A.T, scale, out=columns[:, :m], casting="same_kind")
    else:
        real = layout.order >= 0
        columns[real, :m] = A.T[layout.order[real]] * scale
    return columns


def split_diagonal(Q: Array) -> Array:
    """Return the part of a matrix's diagonal that counts as curvature: the largest coupling.

    A convex curvature has a diagonal of at least that size on average
    (``|C_ij| ≤ √(C_ii C_jj)``); the rest is linear.
    """
    if len(Q) == 1:
        return np.zeros(1, np.float32)
    off = np.abs(Q)
    np.fill_diagonal(off, 0)
    return off.max(axis=1)


def _centred(values: Array, problem: CardinalityQUBO) -> Array:
    """Subtract each group's mean, which does not affect swaps, to save float32 precision."""
    sums = np.bincount(problem.groups, weights=values, minlength=problem.num_groups)
    means = sums / np.maximum(problem.group_sizes, 1)
    return np.asarray(values - means[problem.groups])


def _scale(peak: float) -> float:
    """Return a factor that scales coefficients to about 1, or 1 if they are near enough."""
    return 1.0 if peak == 0 or 1 / _FAR < peak < _FAR else 1 / peak


def _single(values: Array, scale: float) -> Array:
    scaled = values if scale == 1 else values * scale
    return np.ascontiguousarray(scaled, dtype=np.float32)
