"""Search of problems with a budget: relaxation, rounding, and annealing of cores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO
from problems.knapsack import fill
from solvers.anneal.budget_kernel import Core, relax, search_core
from solvers.anneal.rng import seed_state
from solvers.base import Outcome, Request, State
from solvers.solution import Stop

Array = npt.NDArray[Any]
Vector = npt.NDArray[np.float64]

#: Up to this many variables, all are one core; of more, a core has twice as many variables as
#: are fractional in the relaxation, within these limits.
_WHOLE, _SMALLEST, _LARGEST = 320, 256, 2048
#: Sweeps of the relaxation, and of all trips of a core; sweeps of a trip are at least the last.
_RELAX, _SWEEPS, _TRIP = 24, 240, 20
#: Cores in a row without success that end a search without a time limit, and the gain that counts
#: as a success, as a share of the gains so far.
_PATIENCE, _SUCCESS = 4, 1e-3
#: Temperatures of trips, in units of the typical cost of an exchange.
_HOT, _COLD = 1.0, 0.03
#: Smallest curvature of a variable, as a share of the largest.
_FLAT = 1e-9


class Model:
    """A problem in the form of the kernels."""

    def __init__(self, problem: BudgetQUBO) -> None:
        self.problem = problem
        self.factored = problem.is_factored
        self.matrix: Array
        if self.factored:
            # Rows of the transposed factor are contiguous; they are only copied if they are not.
            self.matrix = np.ascontiguousarray(problem.A.T, np.float32)
            curvature = np.einsum("ij,ij->i", self.matrix, self.matrix, dtype=np.float64)
            self.linear = problem.linear
        else:
            self.matrix = np.ascontiguousarray(problem.Q, np.float32)
            off = np.abs(self.matrix)
            np.fill_diagonal(off, 0)
            # A convex curvature has a diagonal of at least the size of its couplings.
            curvature = off.max(axis=1).astype(np.float64)
            self.linear = problem.diagonal - curvature
        peak = float(curvature.max(initial=0)) or float(np.abs(self.linear).max(initial=0)) or 1.0
        self.curvature = np.maximum(curvature, _FLAT * peak)
        self.costs, self.budget, _ = problem.whole
        self.groups = problem.groups.astype(np.int64)
        positive = self.costs[self.costs > 0]
        self.unit = float(positive.mean()) if len(positive) else 1.0
        #: Whether exchanges of one variable for several can help.
        self.chains = len(positive) > 0 and bool((positive != positive[0]).any())

    def fields(self, x: State) -> Vector:
        """Local fields of a state, in the precision of the kernels, shape (n,)."""
        if not self.factored:
            return self.problem.fields(x)
        inner = self.matrix.T @ x.astype(np.float32)
        coupled = 2 * (self.matrix @ inner).astype(np.float64)
        own = np.einsum("ij,ij->i", self.matrix, self.matrix, dtype=np.float32)
        fields: Vector = self.linear + coupled + own * (1 - 2.0 * x)
        return fields

    def block(self, index: Array) -> npt.NDArray[np.float64]:
        """Rows and columns of ``Q`` in float64, shape (c, c)."""
        if not self.factored:
            return np.ascontiguousarray(self.problem.Q[np.ix_(index, index)], np.float64)
        rows = self.matrix[index]
        block = (rows @ rows.T).astype(np.float64)
        block[np.diag_indices(len(index))] += self.linear[index]
        return block

    def relax(self, x: State, request: Request, sweeps: int = _RELAX) -> tuple[Vector, float]:
        """Return a point near the relaxation's minimum, and the budget's multiplier."""
        problem = self.problem
        y = x.astype(np.float64)
        multiplier = np.array([self.unit * self.multiplier(x)])
        shifts = np.zeros(problem.num_groups)
        for done in range(0, sweeps, 4):
            if done and request.remaining <= 0:
                break
            if self.factored:
                inner = self.matrix.T @ y.astype(np.float32)
            else:
                inner = 2 * (self.matrix @ y.astype(np.float32) - self.matrix.diagonal() * y)
            relax(
                self.matrix, self.factored, self.linear, self.curvature,
                self.costs / self.unit, self.budget / self.unit, self.groups,
                problem.least, problem.most, y, inner.astype(np.float32), multiplier, shifts, 4,
            )  # fmt: skip
        return y, float(multiplier[0]) / self.unit

    def multiplier(self, x: State) -> float:
        """Energy of a whole unit of saving at a state, from the most expensive ones."""
        able = self.costs > 0
        rates = self.fields(x)[able] / self.costs[able]
        chosen = np.sort(rates[x[able] == 1])
        return float(max(0.0, chosen[-1 - len(chosen) // 20])) if len(chosen) else 0.0


class _Walk:
    """A state that is improved core by core."""

    def __init__(self, model: Model, x: State, multiplier: float, size: int, random: Array) -> None:
        self.model, self.x, self.multiplier, self.random = model, x, multiplier, random
        n = model.problem.n
        self.size = n if n <= _WHOLE else min(max(2 * size, _SMALLEST), _LARGEST, n)
        self.rng = np.random.default_rng(abs(int(random[0])))

    def steps(self, endless: bool) -> Iterator[bool]:
        """Improve core after core; yield whether the state has changed."""
        failed, total = 0, 0.0
        while True:
            gain = self.improve(self.choose(failed))
            total += gain
            failed = 0 if gain > _SUCCESS * total else failed + 1
            yield gain > 0
            if failed >= _PATIENCE and not endless:
                return

    def choose(self, failed: int) -> Array:
        """Choose the variables whose flips cost least at the multiplier, with more chance later."""
        model, size = self.model, self.size
        if size == model.problem.n:
            return np.arange(size)
        costs = model.fields(self.x) - self.multiplier * model.costs
        score = costs * (1 - 2.0 * self.x) / model.curvature
        scale = np.partition(np.abs(score), size)[size]
        noise = self.rng.exponential(size=len(score)) * scale * (0.5 + failed)
        return np.sort(np.argpartition(score + noise, size)[:size])

    def improve(self, index: Array) -> float:
        """Anneal a core; return by how much the energy fell."""
        model, problem = self.model, self.model.problem
        C, x = model.block(index), self.x[index].copy()
        f = model.fields(self.x)[index]
        coupled = C.copy()
        np.fill_diagonal(coupled, 0)
        core = Core(
            C, f - 2 * (coupled @ x), x, f.copy(), model.costs[index], model.groups[index],
            problem.count(self.x[None])[0], problem.least, problem.most,
            np.array([int(model.costs[self.x == 1].sum()) - model.budget]),
        )  # fmt: skip
        reduced = np.abs(f - self.multiplier * core.costs)
        typical = float(np.median(reduced)) + 2 * float(np.abs(coupled).mean()) + 1e-300
        # Few long trips on large cores, many short ones on small ones.
        trips = max(1, min(_SWEEPS // _TRIP, 2 * _LARGEST // len(index)))
        change = search_core(
            core, _HOT * typical, _COLD * typical, _SWEEPS // trips, trips, model.chains,
            self.random,
        )  # fmt: skip
        self.x[index] = core.x
        return -float(change)


def search_budget(problem: BudgetQUBO, request: Request, endless: bool | None = None) -> Outcome:
    """Search from the initial state and the rounded relaxation.

    Parameters
    ----------
    problem, request
        As for :meth:`solvers.Solver.run_budget`.
    endless : bool, optional
        Whether a read continues until its time is over, or ends after several cores without
        success; by default it continues if there is a time limit.
    """
    if endless is None:
        endless = request.time_limit is not None
    begin = time.perf_counter()
    model = Model(problem)
    build = time.perf_counter() - begin
    random = seed_state(request.seed)
    start = request.initial_state
    if start is None:
        fields = model.linear + model.curvature
        start = fill(problem, _by_rate(fields, model.costs), fields < 0)
    y, multiplier = model.relax(start, request)
    reduced = model.fields((y > 0.5).astype(np.uint8)) - multiplier * model.costs
    rng = np.random.default_rng(abs(int(random[0])))
    fractional = int(((y > 0) & (y < 1)).sum())
    samples: list[State] = []
    best, stop = np.inf, Stop.CONVERGED
    for left in range(request.num_reads, 0, -1):
        if samples and request.remaining <= 0:
            stop = Stop.TIME_LIMIT
            break
        rounded = y if not samples else y + rng.uniform(-0.5, 0.5, problem.n) * (y > 0) * (y < 1)
        if samples and not fractional:
            rounded = y + rng.normal(scale=0.5, size=problem.n)
        order = np.lexsort((reduced, -rounded))
        x = fill(problem, order, rounded >= 1)
        if request.initial_state is not None and not samples:
            x = min(x, request.initial_state, key=problem.energy).copy()
        walk = _Walk(model, x, multiplier, fractional, random)
        until = time.perf_counter() + request.remaining / left
        known = np.inf
        for gained in walk.steps(endless):
            if request.callback is not None and (gained or known == np.inf):
                known = problem.energy(walk.x)
                if known < best:
                    best = known
                    if request.report(known, x=walk.x):
                        stop = Stop.INTERRUPTED
                        break
            if request.interrupted or time.perf_counter() >= until:
                stop = Stop.TIME_LIMIT
                break
        samples.append(walk.x)
        if stop is Stop.INTERRUPTED:
            break
    info = {
        "fractional": fractional,
        "multiplier": multiplier / problem.whole.unit,
    }
    return Outcome(np.array(samples), stop, build_seconds=build, info=info)


def _by_rate(fields: Vector, costs: Array) -> Array:
    """Order variables by energy per saved unit; those that lower the energy come first."""
    rates = np.where(fields < 0, fields, fields / np.maximum(costs, 1e-9))
    return np.lexsort((rates, fields >= 0))


@cache
def compile_kernels() -> None:
    """Compile the kernels, or load them from their cache, on both forms of a problem."""
    rng = np.random.default_rng(0)
    A, costs = rng.normal(size=(4, 12)).astype(np.float32), 1 + np.arange(12) % 3
    factored = BudgetQUBO.from_factors(A, np.zeros(12), costs, 8)
    for problem in (factored, BudgetQUBO(factored.Q, costs, 8)):
        search_budget(problem, Request(seed=0))
