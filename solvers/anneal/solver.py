"""Solver ``anneal``."""

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

from problems import BudgetQUBO, CardinalityQUBO
from solvers._numba import specimens
from solvers.anneal.budget import compile_kernels, search_budget
from solvers.anneal.model import KernelModel
from solvers.anneal.relaxation import solve_relaxation
from solvers.anneal.rng import seed_state, uniforms
from solvers.anneal.search import polish_state, search
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.cpus import usable_cpus
from solvers.interrupt import propagate_interrupt
from solvers.solution import Stop

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Anneal(Solver):
    """Convex relaxation, then annealing of the variables that it leaves undecided.

    With factors, the curvature ``AᵀA`` is convex, and the optimum of the relaxation to
    ``0 ≤ x ≤ 1`` is close to the best binary state: on pruning blocks, all but about ten
    variables are 0 or 1 in it, and nearly all of those keep their value. It is found with working
    sets (:mod:`solvers.anneal.relaxation_kernel`) in O(mn) per round, without forming ``Q``. The
    remaining variables are decided on small cores, whose matrix fits the caches, by short anneals
    with swaps and cached fields, and descents (:mod:`solvers.anneal.core`). Finally, all swaps
    are tried (:mod:`solvers.anneal.polish_kernel`). A dense ``Q`` is treated alike, with a chosen
    diagonal of the curvature. All temperatures are derived from the problem, so that the scale of
    the coefficients has no effect.

    Arithmetic is in float32, with fields recomputed at every stage. Every step keeps the
    cardinality of each group.
    """

    name: ClassVar[str] = "anneal"
    summary: ClassVar[str] = "convex relaxation, then annealing of undecided variables; the default"
    capabilities: ClassVar[Capabilities] = Capabilities(
        groups=True, budgets=True, batches=True, callback=True
    )

    @classmethod
    @cache
    def warm_up(cls) -> None:
        """Compile the kernels, or load them from their cache, on both forms of a problem."""
        for problem in specimens():
            cls().run(problem, Request(seed=0))

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Search from the initial state, or from the smallest linear terms."""
        return self._run(problem, request, usable_cpus())

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Search by flips, swaps and chains within the budget; see :mod:`solvers.anneal.budget`."""
        compile_kernels()
        return search_budget(problem, request)

    def run_batch(
        self, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
    ) -> list[Outcome]:
        """Solve many problems in parallel, one thread per CPU."""

        def solve(problem: CardinalityQUBO, request: Request) -> Outcome:
            started = dataclasses.replace(request, started=time.perf_counter())
            return self._run(problem, started, 1)

        interrupt = requests[0].interrupt if requests else None
        with ThreadPoolExecutor(usable_cpus()) as threads, propagate_interrupt(interrupt):
            return list(threads.map(solve, problems, requests))

    def _run(self, problem: CardinalityQUBO, request: Request, threads: int) -> Outcome:
        begin = time.perf_counter()
        model = KernelModel.of(problem)
        build = time.perf_counter() - begin
        start = request.initial_state
        if start is None:
            cost = problem.linear if problem.is_factored else problem.diagonal
            start = problem.minimise_linear(cost)
        random = seed_state(request.seed)
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
                start = problem.minimise_linear(uniforms(problem.n, random))
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
            polish_state(model, state.x, quick=request.remaining == 0)
            samples.append(model.layout.restore(state.x))
            if stop is Stop.INTERRUPTED:
                break
        info = {
            "fractional": relaxed.fractional,
            "relaxation_solved": relaxed.solved,
        }
        return Outcome(np.array(samples), stop, build_seconds=build, info=info)
