"""The optimum of the relaxation, and the feasible states next to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal import curvature
from solvers.anneal.model import Model
from solvers.anneal.relax import distances, relax
from solvers.base import Request

Array = npt.NDArray[Any]

#: From this many entries of the factor on, products with it are shared out to threads.
_LARGE = 1 << 25
#: Columns or rows of one thread's task: fixed, so that no answer depends on the threads.
_COLUMNS, _ROWS = 1 << 14, 8
#: Rounds between looks at the clock where a round is short.
_ROUNDS = 50


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
    decrease: float
    """Energy of the start less that of ``x``."""
    solved: bool

    @property
    def is_feasible(self) -> bool:
        """Whether every variable is 0 or 1; if convex and solved, it is an optimum."""
        return len(self.inside) == 0

    def rounded(self, rng: np.random.Generator | None = None) -> State:
        """Round: the largest up, or, with a generator, larger ones up more often."""
        values = self.x[self.inside]
        if rng is None:
            order = np.argsort(-values, kind="stable")
        else:
            order = np.argsort(rng.standard_exponential(len(values)) / values)
        group = self.model.layout.group_of(self.inside)
        step = -values
        for g in np.unique(group):
            members = order[group[order] == g]
            up = members[: round(float(values[members].sum()))]
            step[up] = 1 - values[up]
        return self._moved(step)

    def _moved(self, step: Array) -> State:
        model, inside = self.model, self.inside
        state = State(self.x.copy(), self.s.copy(), self.g.copy(), float(self.g[inside] @ step))
        state.x[inside] = np.rint(state.x[inside] + step)
        if model.factored:
            shift = model.matrix[:, inside] @ step
            state.s += shift
            state.energy += float(shift @ shift)
        else:
            C = model.matrix[np.ix_(inside, inside)]
            np.fill_diagonal(C, model.curv[inside])
            state.energy += float(step @ C @ step)
            for v, change in zip(inside, step, strict=True):
                curvature.add_row(model.matrix, model.curv, state.g, int(v), change)
        return state


def solve_relaxation(model: Model, start: Array, request: Request, threads: int) -> Relaxed:
    """Solve the relaxation from a feasible state (by position), until time is out."""
    x, s, g = start.copy(), *model.buffers()
    gained = np.zeros(1)
    large = model.factored and model.matrix.size >= _LARGE
    with ThreadPoolExecutor(threads) as pool:

        def each(task: Callable[..., None], count: int, step: int) -> None:
            ranges: Iterable[tuple[int, int]] = pairwise([*range(0, count, step), count])
            for _ in (pool.map if threads > 1 else map)(lambda r: task(*r), ranges):
                pass

        def differentiate(first: int, last: int) -> None:
            curvature.gradient(model.matrix, model.linear, s, g, first, last)

        def project(first: int, last: int) -> None:
            curvature.project(model.matrix, x, s, first, last)

        if large:
            each(project, len(s), _ROWS)
            each(differentiate, model.size, _COLUMNS)
        else:
            model.refresh(x, s, g)
        solved = False
        while not solved and request.remaining > 0:
            solved = relax(
                model.matrix, model.factored, model.linear, model.curv, x, s, g,
                model.layout.group_lanes, 1 if large else _ROUNDS, gained, not large,
            )  # fmt: skip
            if large:
                each(differentiate, model.size, _COLUMNS)
    distance = np.empty(model.size, np.float32)
    distances(x, g, model.layout.group_lanes, distance)
    inside = np.flatnonzero((x > 0) & (x < 1))
    return Relaxed(model, x, s, g, distance, inside, float(gained[0]), solved)
