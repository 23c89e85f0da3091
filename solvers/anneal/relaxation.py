"""The optimum of the relaxation, and the feasible states next to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.core_selection import selection_score
from solvers.anneal.model import KernelModel, ranges
from solvers.anneal.quadratic import energy, gradient, project
from solvers.anneal.relaxation_kernel import relax
from solvers.anneal.rounding import round_off
from solvers.anneal.sweep import sweeps
from solvers.anneal.thresholds import threshold_distances
from solvers.base import Request

Array = npt.NDArray[Any]

#: Sweeps before the rounds; rounds between looks at the clock where the matrix is small, and how
#: many entries that is; rounds between looks otherwise, and in all.
_SWEEPS, _ROUNDS, _SMALL, _FEW_ROUNDS, _MOST_ROUNDS = 4, 50, 1 << 20, 5, 4000
#: Sweeps with several groups, where pairs are many and short.
_GROUP_SWEEPS = 20


@dataclass
class BinaryPoint:
    """A binary state by position, with what the kernels keep up with it."""

    x: Array
    s: Array
    """``Ax`` with factors, else empty."""
    g: Array
    """Without factors the gradient; with them not kept up."""
    energy: float
    """Relative to the relaxed optimum, in the model's scale."""


@dataclass(frozen=True)
class Relaxation:
    """The optimum of the relaxation (or where a time limit cut it short)."""

    model: KernelModel
    x: Array
    s: Array
    g: Array
    selection_score: Array
    """How little each variable promises to leave its bound."""
    fractional: int
    """Number of variables between 0 and 1."""
    movable: int
    """Number of variables in groups that leave a choice."""
    solved: bool

    @property
    def is_feasible(self) -> bool:
        """Whether every variable is 0 or 1; if convex and solved, it is an optimum."""
        return self.fractional == 0

    @property
    def rounding_cost(self) -> float:
        """What rounding a variable costs on average, if it goes up as likely as it is large."""
        x = np.maximum(self.x, 0)
        return float((x - x * x) @ self.model.curv) / max(self.fractional, 1)

    def rounded(self, random: Array, at_random: bool = False) -> BinaryPoint:
        """Round: the largest up, or, with the state of random numbers, larger ones more often."""
        model, x, s, g = self.model, self.x.copy(), self.s.copy(), self.g.copy()
        rise = round_off(
            model.matrix, model.factored, model.curv, x, s, g,
            model.layout.group_lanes, at_random, random,
        )  # fmt: skip
        return BinaryPoint(x, s, g, float(rise))


def solve_relaxation(
    model: KernelModel, start: Array, request: Request, threads: int
) -> Relaxation:
    """Solve the relaxation from a feasible state (by position), until time is out."""
    x, s, g = start.copy(), *model.buffers()
    if threads > 1 and model.is_large:
        with ThreadPoolExecutor(threads) as pool:
            solved = _descend(model, x, s, g, request, pool)
    else:
        solved = _descend(model, x, s, g, request, None)
    distance = np.empty(model.size, np.float32)
    fractional, movable = threshold_distances(x, g, model.layout.group_lanes, distance)
    score = selection_score(distance, model.curv, fractional)
    return Relaxation(model, x, s, g, score, fractional, movable, solved)


def _descend(
    model: KernelModel,
    x: Array,
    s: Array,
    g: Array,
    request: Request,
    pool: ThreadPoolExecutor | None,
) -> bool:
    """Sweep, then make rounds; returns whether the relaxation is solved."""
    each = pool.map if pool else map

    def differentiate() -> None:
        """Compute the gradient, in ranges so fixed that no bit depends on the threads."""
        for _ in each(lambda r: gradient(model.matrix, model.linear, s, g, *r), ranges(model.size)):
            pass

    def sum_columns(r: tuple[int, int]) -> Array:
        part = np.zeros_like(s)
        project(model.matrix, x, part, *r)
        return part

    lanes, gained = model.layout.group_lanes, np.zeros(1)
    own, small = not model.is_large, model.matrix.size <= _SMALL
    if own:
        model.refresh(x, s, g)
    else:
        s[:] = sum(each(sum_columns, ranges(model.size)))
        differentiate()
    begin = energy(model.linear, x, g)
    if model.factored:
        total = _SWEEPS if len(model.cardinalities) == 1 else _GROUP_SWEEPS
        for times in [total] if small else [1] * total:
            sweeps(model.matrix, model.linear, x, s, g, lanes, times, own)
            if not own:
                differentiate()
            if request.remaining <= 0:
                return False
    gained[0] = begin - energy(model.linear, x, g)
    rounds = 1 if not own else _ROUNDS if small else _FEW_ROUNDS
    for _ in range(0, _MOST_ROUNDS, rounds):
        if request.remaining <= 0:
            break
        if relax(
            model.matrix, model.factored, model.linear, model.curv, x, s, g, lanes,
            rounds, gained, own,
        ):  # fmt: skip
            return True
        if not own:
            differentiate()
    return False
