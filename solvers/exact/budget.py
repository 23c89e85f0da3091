"""Branch and bound under a budget."""

from __future__ import annotations

import dataclasses
import heapq
import time
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO
from problems.knapsack import minimise_linear
from solvers.anneal.budget import Model, compile_kernels, search_budget
from solvers.base import Outcome, Request, State
from solvers.exact.budget_relaxation import BudgetProblem, Iterate, relax
from solvers.exact.convex import Convex, convexify, shift_diagonal
from solvers.solution import Stop

Array = npt.NDArray[Any]
Vector = npt.NDArray[np.float64]

#: Largest number of undecided variables of a tree.
LARGEST = 1024
#: Up to this many variables, the convex form is chosen among this many and the first; smallest
#: weight of a variable in the choice.
_ALTERNATED, _ALTERNATIONS, _LEAST_WEIGHT = 256, 4, 0.05
#: Rounds of the relaxation of the root, and of a node.
_ROOT, _NODE = 60, 12


class _Node(NamedTuple):
    bound: float
    number: int
    """Decides between equal bounds, the later one first."""
    fixed: npt.NDArray[np.int8]
    y: Vector
    theta: Vector


class BudgetRun:
    """One run: an incumbent of ``anneal``, the root's bound, fixing, and a tree over the rest.

    The relaxation of every node is the convex one of :mod:`solvers.exact.convex` under the budget
    and the counts (:mod:`solvers.exact.budget_relaxation`). Compared with the search for
    cardinalities, the tree is slower, since its nodes are kept in Python, and the relaxation of a
    dense problem that is not convex is weaker, because no fixed count helps to convexify it. With
    more than :data:`LARGEST` undecided variables there is a bound, but no tree.

    Energies are without the problem's offset.
    """

    def __init__(
        self, problem: BudgetQUBO, request: Request, gap: float, max_nodes: int | None
    ) -> None:
        self.problem, self.request, self.gap, self.max_nodes = problem, request, gap, max_nodes
        self.x: State = np.zeros(0, np.uint8)
        self.energy, self.bound, self.granted = np.inf, -np.inf, 0.0
        self.nodes, self.core_size = 0, problem.n
        self.stop = Stop.PROVEN
        self.convex: Convex | None = None
        compile_kernels()
        search = dataclasses.replace(
            request,
            num_reads=1,
            time_limit=None if request.time_limit is None else request.remaining / 2,
            callback=None,
            started=time.perf_counter(),
        )
        self.offer(search_budget(problem, search, endless=False).samples[0])
        if request.initial_state is not None:
            self.offer(request.initial_state)
        begin = time.perf_counter()
        if not self.limited():
            self.convex = self.choose_convex()
        self.build_seconds = time.perf_counter() - begin

    def offer(self, x: State) -> None:
        """Replace the incumbent if a state is better; the callback may stop the run."""
        energy = self.problem.energy(x) - self.problem.offset
        if energy < self.energy:
            self.x, self.energy = x.astype(np.uint8), energy
            if self.request.report(energy + self.problem.offset, x=self.x):
                self.stop = Stop.INTERRUPTED

    @property
    def tolerance(self) -> float:
        """Required improvement of a state on the incumbent."""
        wanted = self.gap * abs(self.energy + self.problem.offset)
        return max(self.convex.tolerance if self.convex else 0.0, wanted)

    @property
    def cutoff(self) -> float:
        """Bound from which on a node can't improve on the incumbent."""
        self.granted = max(self.granted, self.tolerance)
        return self.energy - self.tolerance

    def limited(self) -> bool:
        """Whether the run must stop; sets the reason."""
        if self.stop is Stop.PROVEN and self.request.remaining <= 0:
            self.stop = Stop.TIME_LIMIT
        if self.stop is Stop.PROVEN and self.max_nodes is not None and self.nodes >= self.max_nodes:
            self.stop = Stop.ITERATION_LIMIT
        return self.stop is not Stop.PROVEN

    def choose_convex(self) -> Convex:
        """Return the convex form of the best root bound among several.

        The curvature of a factor with about n rows or more is definite, so that a part ``d`` of
        its diagonal can be moved to the linear terms. That raises the relaxation at its minimum
        ``y`` by ``Σ d_i y_i (1 - y_i)``, which is maximised in turn with ``y``.
        """
        best = convexify(self.problem, self.request)
        if self.problem.n > _ALTERNATED or not best.scale:
            return best
        original, (bound, _y) = best, self.root(best)
        weights = 1 / original.block(np.arange(self.problem.n)).diagonal()
        for _ in range(_ALTERNATIONS):
            if self.request.remaining <= 0:
                break
            tried = shift_diagonal(original, weights)
            if tried is original:
                break
            found, point = self.root(tried)
            if found > bound:
                best, bound, _y = tried, found, point
            weights = point * (1 - point) + _LEAST_WEIGHT
        return best

    def root(self, convex: Convex) -> tuple[float, Vector]:
        """Return the bound and the minimum of the relaxation of the whole problem."""
        n = self.problem.n
        free = np.full(n, -1, np.int8)
        tree = Tree(self, convex, free, np.arange(n), self.x.astype(np.float64))
        iterate = Iterate(tree.y, np.zeros(self.problem.num_groups + 1), np.empty(n))
        bound = relax(tree.problem, free, iterate, np.inf, _ROOT) + tree.constant
        return float(bound), tree.y

    def search(self) -> None:
        """Bound the root, fix variables, and search the tree over the rest."""
        tree = self.tree()
        if tree is None:
            return
        if len(tree.index) > LARGEST:
            self.stop = Stop.CONVERGED if self.stop is Stop.PROVEN else self.stop
            return
        tree.explore()

    def tree(self) -> Tree | None:
        """Fix variables by the root; return the tree over the rest, None if there is no need.

        A large problem is bounded by the gradient at a point near the minimum, as no matrix of
        all its variables is formed.
        """
        convex = self.convex
        if convex is None or not convex.scale:
            return None
        y = self.relaxed_point() if self.problem.n > LARGEST else self.root(convex)[1]
        free = self.fix(convex, y)
        index = np.flatnonzero(free < 0)
        self.core_size = len(index)
        return Tree(self, convex, free, index, y)

    def relaxed_point(self) -> Vector:
        """Return a point near the minimum of the relaxation."""
        model = Model(self.problem)
        return model.relax(self.x, self.request, sweeps=120)[0]

    def fix(self, convex: Convex, y: Vector) -> npt.NDArray[np.int8]:
        """Bound the problem by the gradient at a point, and fix variables by reduced costs."""
        problem = self.problem
        gradient = convex.gradient(y)
        linear = minimise_linear(problem, gradient)
        reduced = gradient - linear.multiplier * problem.whole.costs - linear.shifts[problem.groups]
        # f(x) ≥ f(y) + gradient·(x - y); a rounding error of the sums is far below the slack.
        bound = convex.value(y, gradient) - float(gradient @ y) + linear.bound
        self.bound = max(self.bound, bound - 2 * convex.slack)
        fixed = np.full(problem.n, -1, np.int8)
        decided = self.bound + np.abs(reduced) >= self.cutoff
        decided &= (reduced < 0) == (self.x == 1)  # the incumbent remains feasible
        fixed[decided] = self.x[decided]
        return fixed

    def outcome(self) -> Outcome:
        """Return incumbent and bound; a proof if the tree is exhausted."""
        exhausted = self.stop is Stop.PROVEN
        tolerance = max(self.granted, self.tolerance)
        bound = self.energy - tolerance if exhausted else min(self.bound, self.energy - tolerance)
        return Outcome(
            samples=self.x[None],
            stop=Stop.CONVERGED if exhausted and self.gap else self.stop,
            proven=exhausted and not self.gap,
            bound=None if bound == -np.inf else bound + self.problem.offset,
            build_seconds=self.build_seconds,
            info={"nodes": self.nodes, "core": self.core_size, "tolerance": tolerance},
        )


class Tree:
    """Branch and bound over the undecided variables, best bound first."""

    def __init__(
        self,
        run: BudgetRun,
        convex: Convex,
        values: npt.NDArray[np.int8],
        index: Array,
        y: Vector,
    ) -> None:
        problem = run.problem
        self.run, self.index = run, index
        self.values = np.maximum(values, 0).astype(np.uint8)
        taken = self.values.astype(np.float64)
        gradient = convex.gradient(taken)
        self.constant = convex.value(taken, gradient) - 2 * convex.slack
        costs, budget, _ = problem.whole
        counts = problem.count(self.values[None])[0]
        room = np.bincount(problem.groups[index], minlength=problem.num_groups)
        self.least = np.maximum(problem.least - counts, 0)
        self.most = np.minimum(problem.most - counts, room)
        self.missing = max(0, budget - int(costs[self.values == 1].sum()))
        self.costs, self.groups = costs[index], problem.groups[index].astype(np.int64)
        unit = float(max(1, self.costs.max(initial=0)))
        self.problem = BudgetProblem(
            convex.block(index), np.ascontiguousarray(gradient[index]), self.costs / unit,
            self.missing / unit, self.groups, self.least.astype(np.float64),
            self.most.astype(np.float64),
        )  # fmt: skip
        self.y = np.ascontiguousarray(y[index])

    def explore(self) -> None:
        """Process nodes until none can improve on the incumbent, or the run is limited."""
        run, numbers = self.run, count(0, -1)
        theta = np.zeros(len(self.least) + 1)
        start = np.full(len(self.index), -1, np.int8)
        bound = run.bound
        heap = [_Node(bound, next(numbers), start, self.y, theta)] if self.possible(start) else []
        while heap:
            node = heapq.heappop(heap)
            run.bound = max(run.bound, min(node.bound, run.cutoff))
            if node.bound >= run.cutoff:
                return
            if run.limited():
                return
            run.nodes += 1
            for bound, fixed, y, theta in self.branch(node):
                heapq.heappush(heap, _Node(bound, next(numbers), fixed, y, theta))

    def lift(self, state: Array) -> State:
        """Return the state of all variables for one of the undecided ones."""
        x = self.values.copy()
        x[self.index] = state
        return x

    def branch(self, node: _Node) -> list[tuple[float, npt.NDArray[np.int8], Vector, Vector]]:
        """Relax a node; return its children, if any can improve on the incumbent."""
        run, fixed = self.run, node.fixed.copy()
        self.force(fixed)
        y, theta = node.y.copy(), node.theta.copy()
        reduced = np.empty(len(y))
        rounds = _NODE if run.nodes > 1 else _ROOT
        found = relax(
            self.problem, fixed, Iterate(y, theta, reduced), run.cutoff - self.constant, rounds
        )
        # Also where it is not a number.
        bound = max(node.bound, found + self.constant) if found == found else node.bound
        self.round(fixed, y)
        open_ = fixed < 0
        if bound >= run.cutoff or not open_.any():
            return []
        decided = open_ & (bound + np.abs(reduced) >= run.cutoff)
        fixed[decided] = (reduced < 0)[decided]
        if not self.possible(fixed):
            return []
        free = np.flatnonzero(fixed < 0)
        children = []
        stake = self.problem.P[free, free] * y[free] * (1 - y[free])
        if len(free) and stake.max() <= 0:
            stake = -np.abs(reduced[free])
        for value in (0, 1) if len(free) else ():
            child = fixed.copy()
            child[free[int(np.argmax(stake))]] = value
            if self.possible(child):
                children.append((bound, child, y, theta))
        if not len(free):
            self.round(fixed, y)
        return children

    def possible(self, fixed: npt.NDArray[np.int8]) -> bool:
        """Whether the fixed values allow the counts and the budget, taken one by one."""
        ones, open_ = fixed == 1, fixed < 0
        size = len(self.least)
        counts = np.bincount(self.groups[ones], minlength=size)
        room = np.bincount(self.groups[open_], minlength=size)
        if (counts > self.most).any() or (counts + room < self.least).any():
            return False
        return int(self.costs[ones | open_].sum()) >= self.missing

    def force(self, fixed: npt.NDArray[np.int8]) -> None:
        """Set variables that counts or the budget leave no choice, in place."""
        size, open_ = len(self.least), fixed < 0
        counts = np.bincount(self.groups[fixed == 1], minlength=size)
        room = np.bincount(self.groups[open_], minlength=size)
        fixed[open_ & (counts == self.most)[self.groups]] = 0
        open_ = fixed < 0
        fixed[open_ & (counts + room == self.least)[self.groups]] = 1
        open_ = fixed < 0
        spare = int(self.costs[(fixed == 1) | open_].sum()) - self.missing
        fixed[open_ & (self.costs > spare)] = 1

    def round(self, fixed: npt.NDArray[np.int8], y: Vector) -> None:
        """Offer the rounded point of a node, if it is feasible."""
        x = self.values.copy()
        order = np.where(fixed >= 0, fixed, y)
        for threshold in (0.5, 0.3):
            x[self.index] = order > threshold
            if self.run.problem.is_feasible(x):
                self.run.offer(x)
                return
