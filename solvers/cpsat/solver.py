"""Solver ``cpsat``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from problems import BudgetQUBO, CardinalityQUBO
from solvers.base import Capabilities, Outcome, Request, Solver, State
from solvers.cpsat.model import CpSatModel
from solvers.cpsat.products import products
from solvers.cpsat.squares import squares
from solvers.cpus import usable_cpus
from solvers.errors import BackendError, OptionError
from solvers.exact import Exact
from solvers.interrupt import interruptible
from solvers.reduced_search import ReducedSearch
from solvers.solution import Stop
from solvers.streams import bounded_seed

#: Up to this many free variables, products are used, which have smaller rounding errors.
_FEW = 24


@dataclass(frozen=True)
class CpSat(Solver):
    """OR-Tools CP-SAT on one of two formulations.

    ``"products"`` has a variable for each ``x_i x_j`` (:mod:`solvers.cpsat.products`): the
    textbook linearisation, whose bound is weak. ``"squares"`` (:mod:`solvers.cpsat.squares`)
    writes the energy as a sum of squares of linear forms with tangents, which gives CP-SAT the
    bound of the convex relaxation. ``"auto"`` uses products for a few free variables, else
    squares.

    CP-SAT's objective is integral. The largest increase of a feasible energy by rounded
    coefficients, ``info["rounding"]``, is subtracted from the bound, which then holds for the
    problem as given. Optimality is claimed if CP-SAT proves it and the remaining gap is at most
    ``info["tolerance"]``; rounding alone can leave a gap of ``info["lowering"]``, the largest
    decrease.

    Parameters
    ----------
    formulation : {"auto", "products", "squares"}
    relax : bool, default True
        Fix variables by reduced costs of the convex relaxation first, relative to the state of a
        swap search (:mod:`solvers.exact.fixing`). Without it, fix variables by dominance only
        (:mod:`problems.presolve`).
    workers : int, optional
        Parallel workers; as many as there are usable CPUs when omitted. One alone is
        deterministic.
    rlt : bool, default False
        With products: add the cardinality times each variable.
    bits : int, default 40
        With products: bits of the largest scaled coefficient; fewer are used if sums would
        overflow.
    tangents : int, default 4
        With squares: tangents on either side of the relaxation's minimum.
    tolerance : float, default 1e-6
        Largest gap of a proof, as a share of the energy without offset; ties as in
        :mod:`solvers.exact` are always allowed.
    """

    formulation: str = "auto"
    relax: bool = True
    workers: int | None = None
    rlt: bool = False
    bits: int = 40
    tangents: int = 4
    tolerance: float = 1e-6

    name: ClassVar[str] = "cpsat"
    summary: ClassVar[str] = "OR-Tools CP-SAT on products or squares; proves optimality"
    requires: ClassVar[dict[str, str]] = {"ortools.sat.python.cp_model": "ortools>=9.10"}
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True,
        max_n=2048,
        groups=True,
        budgets=True,
        deterministic=False,
        num_reads=False,
        callback=True,
    )

    def __post_init__(self) -> None:
        known = ("auto", "products", "squares")
        if self.formulation not in known:
            raise OptionError(
                f"formulation is {self.formulation!r}; it must be one of {', '.join(known)}"
            )
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers is {self.workers}; it must be 1 or more")
        if not 8 <= self.bits <= 48:
            raise OptionError(f"bits is {self.bits}; it must lie in [8, 48]")
        if not 0 <= self.tangents <= 100:
            raise OptionError(f"tangents is {self.tangents}; it must lie in [0, 100]")
        if not 0.0 <= self.tolerance < 1.0:
            raise OptionError(f"tolerance is {self.tolerance}; it must be a share in [0, 1)")

    @classmethod
    def warm_up(cls) -> None:
        """Compile the kernels of the relaxation."""
        Exact.warm_up()

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Reduce the problem, build the model within the time limit, and solve."""
        begin = time.perf_counter()
        search = _Search(self, problem, request)
        model = None
        if not search.settled and search.stop is Stop.PROVEN:
            model = search.build()
            if model is None:
                search.stop = Stop.TIME_LIMIT
        build = time.perf_counter() - begin
        if model is not None:
            search.run(model)
        return search.outcome(build, self.tolerance)

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Solve a problem with a budget; see :mod:`solvers.cpsat.budget`."""
        from solvers.cpsat.budget import search_budget

        return search_budget(self, problem, request)

    def solve_model(self, model: CpSatModel, watcher: Watcher) -> dict[str, Any]:
        """Run CP-SAT from the watcher's start; return its report.

        Raises
        ------
        BackendError
            If CP-SAT rejects the model.
        """
        from ortools.sat.python import cp_model

        class Watch(cp_model.CpSolverSolutionCallback):
            def on_solution_callback(self) -> None:
                if watcher.offer_state(np.array([self.value(v) for v in model.x], np.uint8)):
                    self.stop_search()

        request = watcher.request
        for variable, value in model.complete(watcher.start):
            model.model.add_hint(variable, value)
        solver = cp_model.CpSolver()
        solver.parameters.linearization_level = 2
        solver.parameters.num_workers = self.workers or usable_cpus()
        if request.seed is not None:
            solver.parameters.random_seed = bounded_seed(request.seed, 2**31 - 1)
        if request.time_limit is not None:
            solver.parameters.max_time_in_seconds = max(request.remaining, 1e-3)
        # Otherwise CP-SAT handles SIGINT in C and doesn't restore it: Ctrl-C would kill the
        # process.
        solver.parameters.catch_sigint_signal = False
        watch = Watch()
        status = interruptible(
            lambda: solver.solve(model.model, watch), solver.stop_search, request
        )
        if status in (cp_model.MODEL_INVALID, cp_model.INFEASIBLE):
            reason = model.model.validate() or solver.status_name(status)
            raise BackendError(f"CP-SAT rejects the model: {reason}")
        known = status != cp_model.UNKNOWN
        lower = model.lower(solver.best_objective_bound) if known else None
        watcher.conclude(lower, status == cp_model.OPTIMAL)
        return {
            "variables": len(model.model.proto.variables),
            "rounding": float(model.rounding),
            "lowering": float(model.lowering),
            "branches": solver.num_branches,
            "conflicts": solver.num_conflicts,
        }


class Watcher(Protocol):
    """What :meth:`CpSat.solve_model` asks and reports."""

    request: Request

    @property
    def start(self) -> State:
        """A state to start from, shape (n,)."""

    def offer_state(self, state: State) -> bool:
        """Take a solution; return whether the search must stop."""

    def conclude(self, lower: float | None, optimal: bool) -> None:
        """Take the final bound on the energy, and whether CP-SAT proved optimality."""


class _Search(ReducedSearch):
    """One call of CP-SAT."""

    def __init__(self, options: CpSat, problem: CardinalityQUBO, request: Request) -> None:
        super().__init__(problem, request, options.relax)
        self.options = options

    def build(self) -> CpSatModel | None:
        """Build the CP-SAT model of the remaining problem; None at the time limit."""
        options, rest = self.options, self.rest.problem
        few = rest.n <= _FEW
        if self.request.remaining <= 0:
            return None
        if options.formulation == "products" or (options.formulation == "auto" and few):
            return products(rest, self.request, options.rlt, options.bits)
        start = self.rest.reduce(self.x)
        model = squares(rest, self.request, start, options.tangents)
        return model if self.request.remaining > 0 else None

    @property
    def start(self) -> State:
        """The incumbent, by the variables of the reduced problem."""
        return self.rest.reduce(self.x)

    def offer_state(self, state: State) -> bool:
        """Take a solution of the reduced problem; return whether the search must stop."""
        self.offer(self.rest.restore(state))
        return self.stop is Stop.INTERRUPTED

    def conclude(self, lower: float | None, optimal: bool) -> None:
        """Raise the bound, and note whether CP-SAT stopped early."""
        if lower is not None:
            self.raise_bound(lower)
        if not optimal and self.stop is Stop.PROVEN:
            self.stop = Stop.TIME_LIMIT

    def run(self, model: CpSatModel) -> None:
        """Run CP-SAT from the incumbent; every solution it finds is offered."""
        self.info |= self.options.solve_model(model, self)
