"""The uniform interface of the swap search."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.anneal.dense import DenseSearch
from solvers.anneal.layout import Layout
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.solution import Stop

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Anneal(Solver):
    """Swap tabu search with cached local fields; cardinalities hold at every step.

    Parameters
    ----------
    tenure : int, default 8
        A moved variable rests for tenure … 2·tenure - 1 swaps.
    patience : int, optional
        Swaps without a better state after which a read without a time limit stops;
        grows with n when omitted.
    """

    tenure: int = 8
    patience: int | None = None

    name: ClassVar[str] = "anneal"
    summary: ClassVar[str] = "swap tabu search with cached fields (CPU); the default"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, batches=True, callback=True)

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Search from the initial state, or from the smallest diagonal entries."""
        begin = time.perf_counter()
        layout = Layout.of(problem.groups, problem.num_groups)
        Q = _matrix(problem, layout)
        build = time.perf_counter() - begin
        rng = np.random.default_rng(request.seed)
        samples = []
        stop = Stop.CONVERGED
        for read in range(request.num_reads):
            if read == 0 and request.initial_state is not None:
                x = layout.arrange(request.initial_state)
            else:
                x = _random_state(layout, problem.cardinalities, rng)
            share = _share(request, request.num_reads - read)
            search = DenseSearch(Q, layout, x.copy(), int(rng.integers(2**31)), self.tenure)
            stop = search.search(self.patience or 200 + problem.n // 2, share)
            samples.append(search.polish())
            if stop is Stop.INTERRUPTED:
                break
        return Outcome(layout.restore(np.array(samples)), stop, build_seconds=build)

    def run_batch(
        self, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
    ) -> list[Outcome]:
        """Solve many problems side by side, one thread a core."""

        def solve(problem: CardinalityQUBO, request: Request) -> Outcome:
            return self.run(problem, dataclasses.replace(request, started=time.perf_counter()))

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            return list(threads.map(solve, problems, requests))


def _matrix(problem: CardinalityQUBO, layout: Layout) -> Array:
    if problem.is_factored:
        A = np.ascontiguousarray(layout.arrange(problem.A))
        Q = A.T @ A
        Q[np.diag_indices(problem.n)] += layout.arrange(problem.linear).astype(Q.dtype)
        return np.ascontiguousarray(Q)
    Q = problem.Q if layout.order is None else problem.Q[np.ix_(layout.order, layout.order)]
    return np.ascontiguousarray(Q)


def _random_state(layout: Layout, cardinalities: Array, rng: np.random.Generator) -> Array:
    """Draw a state with the right number of ones in each group (positions, uint8)."""
    shuffled = np.lexsort((rng.random(len(layout.group_of)), layout.group_of))
    first = np.searchsorted(layout.group_of, np.arange(len(cardinalities)))
    rank = np.arange(len(shuffled)) - first[layout.group_of]
    x = np.zeros(len(shuffled), np.uint8)
    x[shuffled] = rank < cardinalities[layout.group_of]
    return x


def _share(request: Request, reads_left: int) -> Request:
    """Give one read its part of the time that is left."""
    if request.time_limit is None:
        return request
    return dataclasses.replace(
        request, started=time.perf_counter(), time_limit=request.remaining / reads_left
    )
