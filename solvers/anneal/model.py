"""A problem in the form that the kernels take: float32, by position, scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.anneal import curvature
from solvers.anneal.layout import EMPTY, Layout

Array = npt.NDArray[Any]

#: Coefficients further from 1 than this are scaled, so that no square leaves float32.
_RANGE = 1e10


@dataclass(frozen=True)
class Model:
    """Arrays of one problem; see :mod:`solvers.anneal.curvature` for their meaning."""

    layout: Layout
    factored: bool
    matrix: Array
    """A, shape (m, size), or Q, shape (size, size): float32, C-contiguous."""
    linear: Array
    curv: Array
    """Diagonal of the relaxed curvature; empty with factors, which imply it."""
    cardinalities: Array
    scale: float
    """What the problem's energies were multiplied by."""

    @classmethod
    def of(cls, problem: CardinalityQUBO) -> Model:
        """Bring a problem into this form; nothing is copied that is right already."""
        layout = Layout.of(problem.groups, problem.num_groups)
        if problem.is_factored:
            linear = layout.arrange(problem.linear)
            scale = _scale(max(np.abs(linear).max(initial=0), _peak(problem.A) ** 2))
            A = _single(layout.arrange(problem.A), np.sqrt(scale))
            return cls(
                layout, True, A, _single(linear, scale), np.zeros(0, np.float32),
                problem.cardinalities, scale,
            )  # fmt: skip
        scale = _scale(_peak(problem.Q))
        Q = problem.Q
        if layout.order is not None:
            Q = np.ascontiguousarray(layout.arrange(layout.arrange(Q).T).T)
        Q = _single(Q, scale)
        curv = split_diagonal(Q)
        return cls(layout, False, Q, Q.diagonal() - curv, curv, problem.cardinalities, scale)

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.layout.size

    def buffers(self) -> tuple[Array, Array]:
        """Return room for ``s`` and ``g`` of a state."""
        depth = len(self.matrix) if self.factored else 0
        return np.zeros(depth, np.float32), np.empty(self.size, np.float32)

    def refresh(self, x: Array, s: Array, g: Array) -> None:
        """Compute ``s`` and ``g`` from ``x``; see :mod:`solvers.anneal.curvature`."""
        curvature.refresh(self.matrix, self.factored, self.linear, self.curv, x, s, g)

    def start(self, state: Array) -> Array:
        """Bring a state by variable (uint8) to positions (float32)."""
        return np.ascontiguousarray(self.layout.arrange(state.astype(np.float32), EMPTY))


def split_diagonal(Q: Array) -> Array:
    """Choose which part of a matrix's diagonal is curvature: the largest coupling.

    A diagonal of at least that much is what a convex curvature must have on average
    (``|C_ij| ≤ √(C_ii C_jj)``); the rest is linear.
    """
    if len(Q) == 1:
        return np.zeros(1, np.float32)
    off = np.abs(Q)
    np.fill_diagonal(off, 0)
    return off.max(axis=1)


def _peak(values: Array) -> float:
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def _scale(peak: float) -> float:
    """Return a factor that brings coefficients near 1, or 1 where they are near enough."""
    return 1.0 if peak == 0 or 1 / _RANGE < peak < _RANGE else 1 / peak


def _single(values: Array, scale: float) -> Array:
    scaled = values if scale == 1 else values * scale
    return np.ascontiguousarray(scaled, dtype=np.float32)
