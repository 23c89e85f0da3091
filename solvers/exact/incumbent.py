"""Initial incumbents; better ones allow more reduced-cost fixing."""

from __future__ import annotations

import time
from dataclasses import replace

from problems import CardinalityQUBO
from solvers.anneal import Anneal
from solvers.base import Request, State
from solvers.exact.root import Root


def swap_search(problem: CardinalityQUBO, request: Request, start: State | None) -> State:
    """Return the better of ``start`` and the result of the swap search from it."""
    search = replace(
        request,
        initial_state=start,
        num_reads=1,
        time_limit=None,
        callback=None,
        started=time.perf_counter(),
    )
    x: State = Anneal().run(problem, search).samples[0]
    return x if start is None else min(x, start, key=problem.energy)


def round_relaxation(problem: CardinalityQUBO, root: Root) -> State:
    """Set the largest values of the relaxation in each group to 1."""
    return problem.minimise_linear(-root.y, root.reduced)
