"""The optimum of the relaxation, and the feasible states next to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.curvature import add_row, gradient, project
from solvers.anneal.model import Model, ranges
from solvers.anneal.relax import distances, relax
from solvers.anneal.sweep import sweep
from solvers.base import Request

Array = npt.NDArray[Any]

#: Sweeps before the rounds; rounds between looks at the clock where a round is short.
_SWEEPS, _ROUNDS = 3, 50


@dataclass
class State:
    """A binary state by position, with what the kernels keep up with it."""

    x: Array
    s: Array
    """``Ax`` with factors, else empty."""
    g: Array
    """Without factors the gradient; with them not kept up."""
    energy: float
    """Relative to the relaxed optimum, in the model's scale."""


@dataclass(frozen=True)
class Relaxed:
    """The optimum of the relaxation (or where a time limit cut it short)."""

    model: Model
    x: Array
    s: Array
    g: Array
    distance: Array
    """Distance of each gradient from its group's threshold."""
    inside: Array
    """Positions of the variables between 0 and 1."""
    solved: bool

    @property
    def is_feasible(self) -> bool:
        """Whether every variable is 0 or 1; if convex and solved, it is an optimum."""
        return len(self.inside) == 0

    def rounded(self, rng: np.random.Generator | None = None) -> State:
        """Round: the largest up, or, with a generator, larger ones up more often."""
        values = self.x[self.inside]
        keys = -values if rng is None else rng.standard_exponential(len(values)) / values
        order = np.argsort(keys, kind="stable")
        step = -values
        for members in self.model.layout.split(self.inside, order):
            up = members[: round(float(values[members].sum()))]
            step[up] = 1 - values[up]
        return self._moved(step)

    def _moved(self, step: Array) -> State:
        model, inside = self.model, self.inside
        state = State(self.x.copy(), self.s.copy(), self.g.copy(), float(self.g[inside] @ step))
        state.x[inside] = np.rint(state.x[inside] + step)
        if model.factored:
            shift = step @ model.matrix[inside]
            state.s += shift
            state.energy += float(shift @ shift)
        else:
            C = model.matrix[np.ix_(inside, inside)]
            np.fill_diagonal(C, model.curv[inside])
            state.energy += float(step @ C @ step)
            for v, change in zip(inside, step, strict=True):
                add_row(model.matrix, model.curv, state.g, int(v), change)
        return state


def solve_relaxation(model: Model, start: Array, request: Request, threads: int) -> Relaxed:
    """Solve the relaxation from a feasible state (by position), until time is out."""
    x, s, g = start.copy(), *model.buffers()
    if threads > 1 and model.is_large:
        with ThreadPoolExecutor(threads) as pool:
            solved = _descend(model, x, s, g, request, pool)
    else:
        solved = _descend(model, x, s, g, request, None)
    distance = np.empty(model.size, np.float32)
    distances(x, g, model.layout.group_lanes, distance)
    return Relaxed(model, x, s, g, distance, np.flatnonzero((x > 0) & (x < 1)), solved)


def _descend(
    model: Model, x: Array, s: Array, g: Array, request: Request, pool: ThreadPoolExecutor | None
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
    if not model.factored:
        model.refresh(x, s, g)
    else:
        s[:] = sum(each(sum_columns, ranges(model.size)))
        differentiate()
        for _ in range(_SWEEPS):
            sweep(model.matrix, model.linear, x, s, g, lanes)
            differentiate()
            if request.remaining <= 0:
                return False
    own = not model.is_large
    solved = False
    while not solved and request.remaining > 0:
        solved = relax(
            model.matrix, model.factored, model.linear, model.curv, x, s, g, lanes,
            _ROUNDS if own else 1, gained, own,
        )  # fmt: skip
        if not own:
            differentiate()
    return solved
