"""Solver ``exact``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from problems import BudgetQUBO, CardinalityQUBO
from solvers._numba import specimens
from solvers.base import Capabilities, Outcome, Request, Solver, State
from solvers.errors import OptionError
from solvers.exact.convex import Convex, convexify
from solvers.exact.incumbent import round_relaxation, swap_search
from solvers.exact.root import Root, extract_core, solve_root
from solvers.exact.tree import Margins
from solvers.exact.tree_search import TreeSearch
from solvers.solution import Stop

#: Approximate seconds between checks of the clock.
_PACE = 0.05
#: The tree is rebuilt when a better incumbent fixes this share of its variables.
_REBUILD = 0.3


@dataclass(frozen=True)
class Exact(Solver):
    """Branch and bound on the convex quadratic relaxation, with a proof of optimality.

    A pruning block is a convex quadratic (its curvature is ``AᵀA``) whose linear terms are large
    relative to the diagonal of the curvature: the minimum over ``0 ≤ y ≤ 1``, ``Σy = k`` has few
    fractional variables and is within a fraction of a percent of the optimum. The steps are: a
    swap search for an incumbent; the root relaxation; fixing of every variable whose reduced cost
    exceeds the gap; and a tree over the remaining core, in which each node is relaxed by a
    warm-started active-set method, reduced by the same fixing, and split on the variable with the
    largest predicted increase. Matrices that are not convex are convexified first
    (:mod:`solvers.exact.convex`); their relaxation is weaker, and n above about 60 is slow.

    Bounds hold in exact arithmetic for the problem as given, since rounding errors are included.
    Answers are optimal within ``info["tolerance"]``, the largest rounding error or 5e-11 of the
    coefficients' absolute sum if that is more, and ``bound`` is below the energy by as much.

    Parameters
    ----------
    gap : float, default 0
        Stop, without claiming optimality, when the incumbent is within this share of its energy
        from a proven bound.
    max_nodes : int, optional
        Stop after this many nodes.
    """

    gap: float = 0.0
    max_nodes: int | None = None

    name: ClassVar[str] = "exact"
    summary: ClassVar[str] = "branch and bound on the convex relaxation; proves optimality"
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True, max_n=8192, groups=True, budgets=True, num_reads=False, callback=True
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.gap < np.inf:
            raise OptionError(f"gap is {self.gap}; it must be 0 or a positive share")
        if self.max_nodes is not None and self.max_nodes < 0:
            raise OptionError(f"max_nodes is {self.max_nodes}; it must be 0 or more")

    @classmethod
    @cache
    def warm_up(cls) -> None:
        """Compile the kernels, or load them from their cache."""
        for problem in specimens():
            cls().run(problem, Request(seed=0))

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Find an incumbent, solve the root relaxation, and search the tree."""
        run = _Run(self, problem, request)
        run.search()
        return run.outcome()

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Branch and bound under a budget; see :mod:`solvers.exact.budget`."""
        from solvers.exact.budget import BudgetRun

        run = BudgetRun(problem, request, self.gap, self.max_nodes)
        run.search()
        return run.outcome()


class _Run:
    """State of one run. Energies are without the problem's offset."""

    def __init__(self, options: Exact, problem: CardinalityQUBO, request: Request) -> None:
        self.options, self.problem, self.request = options, problem, request
        self.x: State = np.zeros(0, np.uint8)
        self.energy = np.inf
        self.bound = -np.inf
        #: The largest tolerance used to cut off a node.
        self.granted = 0.0
        self.nodes, self.core_size = 0, problem.n
        self.stop = Stop.PROVEN
        self.cardinalities = problem.cardinalities.astype(np.int64)
        self.offer(swap_search(problem, request, request.initial_state))
        self.convex: Convex | None = None
        self.build_seconds = 0.0

    def offer(self, x: State) -> None:
        """Replace the incumbent if a state is better; the callback may stop the run."""
        energy = self.problem.energy(x) - self.problem.offset
        if energy < self.energy:
            self.x, self.energy = x, energy
            if self.request.report(energy + self.problem.offset, x=x):
                self.stop = Stop.INTERRUPTED

    @property
    def tolerance(self) -> float:
        """Required improvement of a state on the incumbent."""
        wanted = self.options.gap * abs(self.energy + self.problem.offset)
        return max(self.convex.tolerance if self.convex else 0.0, wanted)

    def search(self) -> None:
        """Solve the root, and explore trees until one need not be rebuilt."""
        if self.limited():
            return
        begin = time.perf_counter()
        self.convex = convexify(self.problem, self.request)
        self.build_seconds = time.perf_counter() - begin
        if self.convex.scale == 0.0:
            return
        root = solve_root(self.convex, self.cardinalities, self.x, self.request)
        self.bound = root.bound
        self.offer(swap_search(self.problem, self.request, round_relaxation(self.problem, root)))
        while self.bound < self.energy - self.tolerance and not self.limited():
            if self.explore(self.convex, root):
                break

    def explore(self, convex: Convex, root: Root) -> bool:
        """Search a tree; return False to have it rebuilt."""
        self.granted = max(self.granted, self.tolerance)
        core = extract_core(convex, root, self.cardinalities, self.energy - self.granted)
        self.core_size = len(core.index)
        margins = Margins(convex.accuracy, convex.slack, self.granted)
        tree = TreeSearch(core, root.y[core.index], root.bound, self.energy, margins)
        chunk, before = 1, self.nodes
        while tree.open:
            found, begin = tree.found, time.perf_counter()
            tree.explore(min(chunk, self.left))
            self.nodes = before + tree.nodes
            self.bound = min(max(self.bound, tree.bound), self.energy - self.granted)
            if tree.found > found:
                self.offer(core.lift(tree.best))
            if not tree.open or self.limited():
                break
            if tree.found > found and self.shrinks(root):
                return False
            pace = _PACE / max(time.perf_counter() - begin, 1e-6)
            chunk = max(1, int(chunk * min(2.0, pace)))
        return True

    @property
    def left(self) -> int:
        """Number of nodes that may still be processed."""
        most = self.options.max_nodes
        return 1 << 40 if most is None else most - self.nodes

    def limited(self) -> bool:
        """Whether the run must stop; sets the reason."""
        if self.stop is Stop.PROVEN and self.request.remaining <= 0:
            self.stop = Stop.TIME_LIMIT
        if self.stop is Stop.PROVEN and self.left <= 0 and self.bound > -np.inf:
            self.stop = Stop.ITERATION_LIMIT
        return self.stop is not Stop.PROVEN

    def shrinks(self, root: Root) -> bool:
        """Whether the incumbent fixes many more variables than at the start of the tree."""
        cutoff = self.energy - self.granted
        open_ = int((root.bound + np.abs(root.reduced) < cutoff).sum())
        return open_ < (1 - _REBUILD) * self.core_size

    def outcome(self) -> Outcome:
        """Return incumbent and bound; a proof if the tree is exhausted."""
        exhausted = self.stop is Stop.PROVEN
        tolerance = max(self.granted, self.tolerance)
        bound = self.energy - tolerance if exhausted else self.bound
        return Outcome(
            samples=self.x[None],
            stop=Stop.CONVERGED if exhausted and self.options.gap else self.stop,
            proven=exhausted and not self.options.gap,
            bound=None if bound == -np.inf else bound + self.problem.offset,
            build_seconds=self.build_seconds,
            info={"nodes": self.nodes, "core": self.core_size, "tolerance": tolerance},
        )
