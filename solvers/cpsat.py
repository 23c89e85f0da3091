"""OR-Tools CP-SAT: products linearised, cardinalities native, bounds that hold."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from problems.presolve import Presolved, presolve
from solvers.base import Capabilities, Outcome, Request, Solver, State
from solvers.dense import float64_matrix
from solvers.diagonal import Diagonal
from solvers.errors import OptionError
from solvers.solution import Stop

#: Sums of integer coefficients stay exact in a double below this many bits.
_EXACT_BITS = 52


@dataclass(frozen=True)
class CpSat(Solver):
    """Constraint programming with a linear relaxation; proves optimality on small blocks.

    After a presolve by dominance, each product of two free variables becomes a Boolean
    ``y_ij = x_i x_j``. Besides the three McCormick inequalities, each row of the products is
    tied to its variable by the cardinality multiplied by it, ``Σ_{j∈g} y_ij = k_g x_i`` (the
    first level of the reformulation-linearisation technique of Sherali and Adams 1990),
    without which the linear relaxation says next to nothing.

    CP-SAT's objective is integral: coefficients are scaled by a power of two and rounded.
    The most that rounding can change any feasible energy by is subtracted from the bound,
    so that it holds for the problem as given, and recorded as ``info["rounding"]``. A proof
    is claimed only if that lies below 1e-9 of the sum of absolute coefficients.

    Parameters
    ----------
    workers : int, optional
        Parallel workers; all cores when omitted. One alone is deterministic.
    rlt : bool, default True
        Add the rows above. Without them, each product has only the side of McCormick that
        the sign of its coefficient needs: a smaller model with a much weaker bound.
    bits : int, default 40
        The largest coefficient is scaled to so many bits, or fewer where sums would overflow.
    """

    workers: int | None = None
    rlt: bool = True
    bits: int = 40

    name: ClassVar[str] = "cpsat"
    summary: ClassVar[str] = "OR-Tools CP-SAT on the linearised products; proves optimality"
    requires: ClassVar[dict[str, str]] = {"ortools.sat.python.cp_model": "ortools>=9.10"}
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True, max_n=1024, groups=True, deterministic=False, num_reads=False, callback=True
    )

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers is {self.workers}; it must be 1 or more")
        if not 8 <= self.bits <= 48:
            raise OptionError(f"bits is {self.bits}; it must lie in [8, 48]")

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Presolve, build the model within the time limit, solve, and make the bound good."""
        begin = time.perf_counter()
        start = request.initial_state
        if start is None:
            start = Diagonal().run(problem, Request()).samples[0]
        reduced = presolve(problem, pairs_up_to=128)
        if not len(reduced.free):
            x = reduced.restore(np.zeros(0, np.uint8))
            return Outcome(x[None], Stop.PROVEN, proven=True, bound=problem.energy(x))
        model = _Model(self, reduced.problem)
        built = model.build(request)
        build_seconds = time.perf_counter() - begin
        if not built:
            info = {"note": "the time limit ended the building of the model"}
            return Outcome(start[None], Stop.TIME_LIMIT, build_seconds=build_seconds, info=info)
        model.hint(reduced.reduce(start))
        outcome = model.solve(problem, reduced, request, start)
        outcome.build_seconds = build_seconds
        return outcome


@dataclass
class _Model:
    """The linearised problem in CP-SAT's terms."""

    options: CpSat
    problem: CardinalityQUBO
    x: list[Any] = field(default_factory=list)
    y: dict[tuple[int, int], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from ortools.sat.python import cp_model

        self.cp = cp_model
        self.model = cp_model.CpModel()
        Q = float64_matrix(self.problem)
        self.linear = Q.diagonal().copy()
        self.pairs = np.triu(2 * Q, 1)
        self.total = float(np.abs(self.linear).sum() + np.abs(self.pairs).sum())
        self.shift = self._shift()
        self.rounding = self._rounding()

    def _shift(self) -> int:
        """Power of two by which coefficients are scaled."""
        largest = max(float(np.abs(self.linear).max()), float(np.abs(self.pairs).max()))
        if not largest:
            return 0
        return min(
            self.options.bits - math.frexp(largest)[1], _EXACT_BITS - math.frexp(self.total)[1]
        )

    def _integers(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.rint(np.ldexp(values, self.shift)).astype(np.int64)

    def _rounding(self) -> float:
        """Bound the change of a feasible state's energy by rounding, of Q's float64 too."""
        ones = self.problem.k

        def largest(values: npt.NDArray[np.float64], count: int) -> float:
            left = np.abs(values - np.ldexp(self._integers(values).astype(float), -self.shift))
            return float(np.sort(left.ravel())[::-1][:count].sum())

        depth = self.problem.A.shape[0] + 2 if self.problem.is_factored else 1
        product = depth * np.finfo(np.float64).eps * self.total
        return largest(self.linear, ones) + largest(self.pairs, ones * (ones - 1) // 2) + product

    def build(self, request: Request) -> bool:
        """Make variables, rows and objective; False if time ran out first."""
        n, new = self.problem.n, self.model.new_bool_var
        self.x = [new("") for _ in range(n)]
        for group, k in enumerate(self.problem.cardinalities):
            self.model.add(sum(self.x[i] for i in self._members(group)) == int(k))
        couplings = self._integers(self.pairs)
        for i in range(n):
            if request.remaining <= 0:
                return False
            wanted = range(i + 1, n) if self.options.rlt else np.flatnonzero(couplings[i])
            for j in map(int, wanted):
                y = self.y[i, j] = new("")
                if self.options.rlt or couplings[i, j] < 0:
                    self.model.add_implication(y, self.x[i])
                    self.model.add_implication(y, self.x[j])
                if self.options.rlt or couplings[i, j] > 0:
                    self.model.add_bool_or(~self.x[i], ~self.x[j], y)
        if self.options.rlt and not self._tie_rows(request):
            return False
        products = [(y, int(couplings[pair])) for pair, y in self.y.items() if couplings[pair]]
        terms = products + list(zip(self.x, map(int, self._integers(self.linear)), strict=True))
        variables, coefficients = zip(*terms, strict=True)
        weighted = self.cp.LinearExpr.weighted_sum(variables, coefficients)
        self.model.minimize(weighted)
        return True

    def _tie_rows(self, request: Request) -> bool:
        """Multiply each cardinality by each variable: Σ_{j∈g, j≠i} y_ij = (k_g - [i∈g]) x_i."""
        for group, k in enumerate(self.problem.cardinalities):
            members = self._members(group)
            inside = set(members)
            for i in range(self.problem.n):
                if request.remaining <= 0:
                    return False
                row = sum(self.y[min(i, j), max(i, j)] for j in members if j != i)
                self.model.add(row == (int(k) - (i in inside)) * self.x[i])
        return True

    def _members(self, group: int) -> list[int]:
        return [int(i) for i in np.flatnonzero(self.problem.groups == group)]

    def hint(self, state: State) -> None:
        """Start from a state, products included."""
        for i, x in enumerate(self.x):
            self.model.add_hint(x, int(state[i]))
        for (i, j), y in self.y.items():
            self.model.add_hint(y, int(state[i] & state[j]))

    def solve(
        self, problem: CardinalityQUBO, reduced: Presolved, request: Request, start: State
    ) -> Outcome:
        """Run CP-SAT for the time that is left."""
        solver = self.cp.CpSolver()
        if self.options.workers is not None:
            solver.parameters.num_workers = self.options.workers
        if request.seed is not None:
            solver.parameters.random_seed = request.seed % (2**31 - 1)
        if request.time_limit is not None:
            solver.parameters.max_time_in_seconds = max(request.remaining, 1e-3)
        stopped: list[bool] = []
        status = solver.solve(self.model, self._watch(problem, reduced, request, stopped))
        found = status in (self.cp.OPTIMAL, self.cp.FEASIBLE)
        samples = start[None]
        if found:
            state = reduced.restore(np.array([solver.value(x) for x in self.x], np.uint8))
            samples = min(state, start, key=problem.energy)[None]
        bound = math.ldexp(solver.best_objective_bound, -self.shift) - self.rounding
        exhausted = status == self.cp.OPTIMAL
        stop = Stop.PROVEN if exhausted else Stop.INTERRUPTED if stopped else Stop.TIME_LIMIT
        return Outcome(
            samples=samples,
            stop=stop,
            proven=exhausted and self.rounding <= 1e-9 * self.total,
            bound=bound + self.problem.offset if found else None,
            info={
                "free": self.problem.n,
                "products": len(self.y),
                "rounding": float(self.rounding),
                "branches": solver.num_branches,
                "conflicts": solver.num_conflicts,
            },
        )

    def _watch(
        self,
        problem: CardinalityQUBO,
        reduced: Presolved,
        request: Request,
        stopped: list[bool],
    ) -> Any:
        """Return a callback that reports incumbents and stops where it is asked to."""
        variables = self.x

        class Watch(self.cp.CpSolverSolutionCallback):  # type: ignore[name-defined]
            def on_solution_callback(self) -> None:
                state = np.array([self.value(x) for x in variables], np.uint8)
                if request.report(problem.energy(reduced.restore(state))):
                    stopped.append(True)
                    self.stop_search()

        return Watch() if request.callback is not None else None
