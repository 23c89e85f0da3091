"""The uniform interface of the annealer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.anneal.chance import seeded, uniforms
from solvers.anneal.model import Model
from solvers.anneal.relaxed import solve_relaxation
from solvers.anneal.search import polish, search
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.compiled import specimens
from solvers.cpus import usable_cpus
from solvers.interrupt import announced
from solvers.solution import Stop

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Anneal(Solver):
    """Convex relaxation, then annealing of the few variables that it leaves open.

    With factors, the curvature ``AᵀA`` is convex, and the optimum of the relaxation to
    ``0 ≤ x ≤ 1`` lies close to the best binary state: on pruning blocks all but some ten
    variables are 0 or 1 in it, and nearly all of those stay. It is found by working sets
    (:mod:`solvers.anneal.relax`) in O(mn) a round, without ever forming ``Q``. What it
    leaves open is settled on small cores, whose matrix fits the caches, by short anneals
    with swaps and cached fields, and descents (:mod:`solvers.anneal.core`); at last all
    swaps are looked at (:mod:`solvers.anneal.polish`). A dense ``Q`` takes the same way,
    with a diagonal of the curvature that is chosen. All temperatures are read from the
    problem, and a scale of the coefficients changes nothing.

    Arithmetic is in float32 with fields computed afresh at every stage. Cardinalities hold
    at every step, in each group.
    """

    name: ClassVar[str] = "anneal"
    summary: ClassVar[str] = "relaxation, then annealing of what it leaves open; the default"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, batches=True, callback=True)

    @classmethod
    @cache
    def warm_up(cls) -> None:
        """Compile the kernels, or load them from their cache, on both forms of a problem."""
        for problem in specimens():
            cls().run(problem, Request(seed=0))

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Search from the initial state, or from the smallest linear terms."""
        return self._run(problem, request, usable_cpus())

    def run_batch(
        self, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
    ) -> list[Outcome]:
        """Solve many problems side by side, one thread a core."""

        def solve(problem: CardinalityQUBO, request: Request) -> Outcome:
            started = dataclasses.replace(request, started=time.perf_counter())
            return self._run(problem, started, 1)

        interrupt = requests[0].interrupt if requests else None
        with ThreadPoolExecutor(usable_cpus()) as threads, announced(interrupt):
            return list(threads.map(solve, problems, requests))

    def _run(self, problem: CardinalityQUBO, request: Request, threads: int) -> Outcome:
        begin = time.perf_counter()
        model = Model.of(problem)
        build = time.perf_counter() - begin
        start = request.initial_state
        if start is None:
            start = _ranked(problem, problem.linear if problem.is_factored else problem.diagonal)
        random = seeded(request.seed)
        relaxed = solve_relaxation(model, model.start(start), request, threads)
        known = reported = np.inf
        samples: list[Array] = []
        stop = Stop.CONVERGED
        for left in range(request.num_reads, 0, -1):
            if samples and request.remaining == 0:
                stop = Stop.TIME_LIMIT
                break
            if samples and not model.factored:
                known = np.inf
                start = _ranked(problem, uniforms(problem.n, random))
                relaxed = solve_relaxation(model, model.start(start), request, threads)
            until = time.perf_counter() + request.remaining / left
            for state in search(relaxed, random, endless=request.time_limit is not None):
                if request.callback and state.energy < known:
                    known, at = state.energy, time.perf_counter()
                    energy = model.energy(state.x)
                    if energy < reported:
                        reported = energy
                        if request.report(energy, at, model.layout.restore(state.x)):
                            stop = Stop.INTERRUPTED
                            break
                if request.interrupted or time.perf_counter() >= until:
                    stop = Stop.TIME_LIMIT
                    break
            polish(model, state.x, in_haste=request.remaining == 0)
            samples.append(model.layout.restore(state.x))
            if stop is Stop.INTERRUPTED:
                break
        info = {
            "fractional": relaxed.fractional,
            "relaxation_solved": relaxed.solved,
        }
        return Outcome(np.array(samples), stop, build_seconds=build, info=info)


def _ranked(problem: CardinalityQUBO, cost: Array) -> Array:
    """Set the k variables of smallest cost in each group."""
    order = np.lexsort((cost, problem.groups))
    sizes = np.bincount(problem.groups, minlength=problem.num_groups)
    rank = np.arange(problem.n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    x = np.zeros(problem.n, np.uint8)
    x[order] = rank < problem.cardinalities[problem.groups[order]]
    return x
