"""Optimum of the relaxation, and feasible states rounded from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.core_selection import selection_score
from solvers.anneal.model import KernelModel, ranges
from solvers.anneal.quadratic import Point, energy, gradient, project, refresh
from solvers.anneal.relaxation_kernel import relax
from solvers.anneal.rounding import round_off
from solvers.anneal.sweep import sweeps
from solvers.anneal.thresholds import threshold_distances
from solvers.base import Request

Array = npt.NDArray[Any]

#: Sweeps before the rounds; rounds between checks of the clock for a small matrix, its largest
#: number of entries, rounds between checks for others, and largest number of rounds.
_SWEEPS, _ROUNDS, _SMALL, _FEW_ROUNDS, _MOST_ROUNDS = 4, 50, 1 << 20, 5, 4000
#: Sweeps with several groups, which have many pairs with short steps.
_GROUP_SWEEPS = 20


@dataclass
class BinaryPoint:
    """A binary point with its energy."""

    point: Point
    """With factors, ``g`` is not updated."""
    energy: float
    """Relative to the relaxed optimum, in the model's scale."""


@dataclass(frozen=True)
class Relaxation:
    """The optimum of the relaxation, or the last point at a time limit."""

    model: KernelModel
    point: Point
    selection_score: Array
    """Scores of variables, lower if likely to leave their bound; see
    :mod:`solvers.anneal.core_selection`."""
    fractional: int
    """Number of variables between 0 and 1."""
    movable: int
    """Number of variables in groups with a choice."""
    solved: bool

    @property
    def is_feasible(self) -> bool:
        """Whether every variable is 0 or 1, which is optimal if convex and solved."""
        return self.fractional == 0

    @property
    def rounding_cost(self) -> float:
        """Mean cost of rounding a variable, if its value is the probability of rounding up."""
        x = np.maximum(self.point.x, 0)
        return float((x - x * x) @ self.model.quadratic.curv) / max(self.fractional, 1)

    def rounded(self, random: Array, at_random: bool = False) -> BinaryPoint:
        """Round the largest variables up, or at random, larger ones more often."""
        point = Point(*(array.copy() for array in self.point))
        lanes = self.model.layout.group_lanes
        return BinaryPoint(
            point, float(round_off(self.model.quadratic, point, lanes, at_random, random))
        )


def solve_relaxation(
    model: KernelModel, start: Array, request: Request, threads: int
) -> Relaxation:
    """Solve the relaxation from a feasible state (by position), until the time limit."""
    point = model.allocate(start.copy())
    if threads > 1 and model.is_large:
        with ThreadPoolExecutor(threads) as pool:
            solved = _descend(model, point, request, pool)
    else:
        solved = _descend(model, point, request, None)
    distance, lanes = np.empty(model.size, np.float32), model.layout.group_lanes
    fractional, movable = threshold_distances(point.x, point.g, lanes, distance)
    score = selection_score(distance, model.quadratic.curv, fractional)
    return Relaxation(model, point, score, fractional, movable, solved)


def _descend(
    model: KernelModel, point: Point, request: Request, pool: ThreadPoolExecutor | None
) -> bool:
    """Make sweeps, then rounds; return whether the relaxation is solved."""
    each = pool.map if pool else map
    quadratic, (x, s, g) = model.quadratic, point

    def update_gradient() -> None:
        """Compute the gradient, in fixed ranges, so that results don't depend on the threads."""
        matrix, linear = quadratic.matrix, quadratic.linear
        for _ in each(lambda r: gradient(matrix, linear, s, g, *r), ranges(model.size)):
            pass

    def sum_columns(r: tuple[int, int]) -> Array:
        part = np.zeros_like(s)
        project(quadratic.matrix, x, part, *r)
        return part

    lanes, gained = model.layout.group_lanes, np.zeros(1)
    own, small = not model.is_large, quadratic.matrix.size <= _SMALL
    if own:
        refresh(quadratic, point)
    else:
        s[:] = sum(each(sum_columns, ranges(model.size)))
        update_gradient()
    begin = energy(quadratic.linear, x, g)
    if model.factored:
        total = _SWEEPS if len(model.cardinalities) == 1 else _GROUP_SWEEPS
        for times in [total] if small else [1] * total:
            sweeps(quadratic, point, lanes, times, own)
            if not own:
                update_gradient()
            if request.remaining <= 0:
                return False
    gained[0] = begin - energy(quadratic.linear, x, g)
    rounds = 1 if not own else _ROUNDS if small else _FEW_ROUNDS
    for _ in range(0, _MOST_ROUNDS, rounds):
        if request.remaining <= 0:
            break
        if relax(quadratic, point, lanes, rounds, gained, own):
            return True
        if not own:
            update_gradient()
    return False
