"""The uniform interface of CP-SAT."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from problems import CardinalityQUBO
from solvers.base import Capabilities, Outcome, Request, Solver
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

#: Up to this many free variables, products are few and leave less to rounding.
_FEW = 24


@dataclass(frozen=True)
class CpSat(Solver):
    """Constraint programming with a linear relaxation, on one of two formulations.

    ``"products"`` has a variable for each ``x_i x_j`` (:mod:`solvers.cpsat.products`): the
    textbook linearisation, whose bound is weak. ``"squares"`` (:mod:`solvers.cpsat.squares`)
    writes the energy as a sum of squares of linear forms with tangents, which brings the
    bound of the convex relaxation into CP-SAT. ``"auto"`` takes products for a handful of
    free variables, else squares.

    CP-SAT's objective is integral. The most that rounding the coefficients can add to a
    feasible energy, ``info["rounding"]``, is subtracted from the bound, which so holds for
    the problem as given. Optimality is claimed if CP-SAT proves it and what the bound then
    leaves open is at most ``info["tolerance"]``; rounding alone leaves open up to
    ``info["lowering"]``, the most that it can take away.

    Parameters
    ----------
    formulation : {"auto", "products", "squares"}
    relax : bool, default True
        Before CP-SAT sees the problem, fix what the convex relaxation decides against the
        state that a swap search finds (:mod:`solvers.exact.fixing`). Without it, fix what
        dominance decides (:mod:`problems.presolve`), and leave the rest to CP-SAT alone.
    workers : int, optional
        Parallel workers; as many as there are usable CPUs when omitted. One alone is
        deterministic.
    rlt : bool, default False
        With products: add the cardinality times each variable.
    bits : int, default 40
        With products: the largest coefficient is scaled to so many bits, or fewer where
        sums would overflow.
    tangents : int, default 4
        With squares: tangents on either side of the relaxation's minimum.
    tolerance : float, default 1e-6
        Share of the energy (offset left out) that a proof may leave open; it may always
        leave what :mod:`solvers.exact` counts as a tie.
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
        exact=True, max_n=2048, groups=True, deterministic=False, num_reads=False, callback=True
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


class _Search(ReducedSearch):
    """One call of CP-SAT."""

    def __init__(self, options: CpSat, problem: CardinalityQUBO, request: Request) -> None:
        super().__init__(problem, request, options.relax)
        self.options = options

    def build(self) -> CpSatModel | None:
        """State the rest in integers; None if time ran out."""
        options, rest = self.options, self.rest.problem
        few = rest.n <= _FEW
        if self.request.remaining <= 0:
            return None
        if options.formulation == "products" or (options.formulation == "auto" and few):
            return products(rest, self.request, options.rlt, options.bits)
        start = self.rest.reduce(self.x)
        model = squares(rest, self.request, start, options.tangents)
        return model if self.request.remaining > 0 else None

    def run(self, model: CpSatModel) -> None:
        """Let CP-SAT search from the incumbent; every solution on the way is offered."""
        from ortools.sat.python import cp_model

        offer, restore = self.offer, self.rest.restore
        search = self

        class Watch(cp_model.CpSolverSolutionCallback):
            def on_solution_callback(self) -> None:
                offer(restore(np.array([self.value(v) for v in model.x], np.uint8)))
                if search.stop is Stop.INTERRUPTED:
                    self.stop_search()

        for variable, value in model.complete(self.rest.reduce(self.x)):
            model.model.add_hint(variable, value)
        solver = cp_model.CpSolver()
        solver.parameters.linearization_level = 2
        solver.parameters.num_workers = self.options.workers or usable_cpus()
        if self.request.seed is not None:
            solver.parameters.random_seed = bounded_seed(self.request.seed, 2**31 - 1)
        if self.request.time_limit is not None:
            solver.parameters.max_time_in_seconds = max(self.request.remaining, 1e-3)
        # Else CP-SAT takes SIGINT over in C, and leaves it so that Ctrl-C kills the process.
        solver.parameters.catch_sigint_signal = False
        watch = Watch()
        status = interruptible(
            lambda: solver.solve(model.model, watch), solver.stop_search, self.request
        )
        if status in (cp_model.MODEL_INVALID, cp_model.INFEASIBLE):
            reason = model.model.validate() or solver.status_name(status)
            raise BackendError(f"CP-SAT refuses the model: {reason}")
        if status != cp_model.UNKNOWN:
            self.raise_bound(model.lower(solver.best_objective_bound))
        if status != cp_model.OPTIMAL and self.stop is Stop.PROVEN:
            self.stop = Stop.TIME_LIMIT
        self.info |= {
            "variables": len(model.model.proto.variables),
            "rounding": float(model.rounding),
            "lowering": float(model.lowering),
            "branches": solver.num_branches,
            "conflicts": solver.num_conflicts,
        }
