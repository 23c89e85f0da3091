"""Solver ``scip``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from problems import BudgetQUBO, CardinalityQUBO
from solvers.base import Capabilities, Outcome, Request, Solver, State
from solvers.errors import BackendError, OptionError
from solvers.exact import Exact
from solvers.interrupt import interruptible
from solvers.reduced_search import ReducedSearch
from solvers.scip.model import DUAL_TOLERANCE, ScipModel, products, squares
from solvers.solution import Stop

_FORMULATIONS: dict[str, Callable[..., ScipModel | None]] = {
    "squares": squares,
    "products": products,
}

#: Reasons of SCIP to stop.
STOPS = {
    "optimal": Stop.PROVEN,
    "timelimit": Stop.TIME_LIMIT,
    "userinterrupt": Stop.INTERRUPTED,
}


@dataclass(frozen=True)
class Scip(Solver):
    """Branch and cut with SCIP (Bolusani et al., arXiv 2402.17702), through PySCIPOpt.

    ``"squares"`` states the energy as one convex constraint over linear forms, which SCIP bounds
    by gradient cuts; ``"products"`` has a variable for each ``x_i x_j`` and gives weaker bounds
    (:mod:`solvers.scip.model`; benchmarks/results/exact_curve.md). SCIP runs on one thread.

    SCIP computes in floating point. The bound is lowered by the error that its tolerances allow,
    ``info["lowered"]``. Optimality is claimed if the remaining gap is at most
    ``info["tolerance"]``; if SCIP reports an optimum with a larger gap, the run has converged
    without a proof.

    Parameters
    ----------
    formulation : {"squares", "products"}
    relax : bool, default True
        Fix variables before SCIP, by the convex relaxation and the incumbent of a swap search
        (:mod:`solvers.exact.fixing`); else only by dominance (:mod:`problems.presolve`).
    tolerance : float, default 1e-6
        Share of the energy (offset left out) that a proof may leave open; differences that
        :mod:`solvers.exact` counts as ties are always allowed.
    """

    formulation: str = "squares"
    relax: bool = True
    tolerance: float = 1e-6

    name: ClassVar[str] = "scip"
    summary: ClassVar[str] = "SCIP's branch and cut on a sum of squares; proves optimality"
    requires: ClassVar[dict[str, str]] = {"pyscipopt": "pyscipopt>=6"}
    extra: ClassVar[str] = "scip"
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True, max_n=2048, groups=True, budgets=True, num_reads=False, callback=True
    )

    def __post_init__(self) -> None:
        if self.formulation not in _FORMULATIONS:
            raise OptionError(
                f"formulation is {self.formulation!r}; it must be one of {', '.join(_FORMULATIONS)}"
            )
        if not 0.0 <= self.tolerance < 1.0:
            raise OptionError(f"tolerance is {self.tolerance}; it must be in [0, 1)")

    @classmethod
    def warm_up(cls) -> None:
        """Compile the kernels of the relaxation."""
        Exact.warm_up()

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Reduce the problem, build the model within the time limit, and solve."""
        begin = time.perf_counter()
        search = _Search(problem, request, self.relax)
        model = None
        if not search.settled and search.stop is Stop.PROVEN:
            start = search.rest.reduce(search.x)
            if request.remaining > 0:
                model = _FORMULATIONS[self.formulation](search.rest.problem, request, start)
            if model is None or request.remaining <= 0:
                model, search.stop = None, Stop.TIME_LIMIT
        build = time.perf_counter() - begin
        if model is not None:
            search.run(model)
        return search.outcome(build, self.tolerance)

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Solve a problem with a budget; see :mod:`solvers.scip.budget`."""
        from solvers.scip.budget import search_budget

        return search_budget(problem, request, self.tolerance)


def configure(model: Any, request: Request) -> None:
    """Set tolerance, seed and time limit of a SCIP model."""
    model.setParam("numerics/dualfeastol", DUAL_TOLERANCE)
    model.setParam("misc/catchctrlc", False)  # this process handles Ctrl-C
    if request.seed is not None:
        model.setParam("randomization/randomseedshift", request.seed % (2**31 - 1))
    if request.time_limit is not None:
        model.setParam("limits/time", max(request.remaining, 1e-3))


class _Search(ReducedSearch):
    """One call of SCIP."""

    def run(self, form: ScipModel) -> None:
        """Run SCIP from the incumbent; report each better solution."""
        model = form.model
        configure(model, self.request)
        self._warm_start(form)
        watch = self._watch(form)
        interruptible(model.optimizeNogil, model.interruptSolve, self.request)
        if watch.error is not None:
            raise watch.error
        if model.getNSols():  # solutions found in presolving cause no event
            self.offer(self._state_of(form))
        status, bound = model.getStatus(), float(model.getDualbound())
        if status in ("infeasible", "unbounded", "inforunbd"):
            raise BackendError(f"SCIP reports that the model is {status}")
        if not model.isInfinity(abs(bound)):
            lower = form.lower(bound)
            self.raise_bound(lower)
            self.info["lowered"] = bound / form.scale + form.constant - lower
        if self.stop is Stop.PROVEN:
            self.stop = STOPS.get(status, Stop.CONVERGED)
        self.info |= {
            "scip_status": status,
            "variables": model.getNVars(transformed=False),
            "nodes": model.getNTotalNodes(),
            "lp_iterations": model.getNLPIterations(),
        }

    def _warm_start(self, form: ScipModel) -> None:
        solution = form.model.createSol()
        for variable, value in form.complete(self.rest.reduce(self.x)):
            form.model.setSolVal(solution, variable, value)
        form.model.addSol(solution)

    def _state_of(self, form: ScipModel) -> State:
        """Return the whole problem's state of SCIP's best solution."""
        best = form.model.getBestSol()
        values = [form.model.getSolVal(best, v) for v in form.x]
        return self.rest.restore(np.rint(values).astype(np.uint8))

    def _watch(self, form: ScipModel) -> Any:
        """Event handler: reports incumbents of SCIP, and stores an exception of the callback."""
        from pyscipopt import SCIP_EVENTTYPE, Eventhdlr

        search = self

        class Watch(Eventhdlr):
            error: BaseException | None = None

            def eventinit(self) -> None:
                self.model.catchEvent(SCIP_EVENTTYPE.BESTSOLFOUND, self)

            def eventexit(self) -> None:
                self.model.dropEvent(SCIP_EVENTTYPE.BESTSOLFOUND, self)

            def eventexec(self, event: Any) -> None:
                try:
                    search.offer(search._state_of(form))
                except BaseException as error:  # SCIP would print and discard it
                    self.error = error
                if self.error is not None or search.stop is Stop.INTERRUPTED:
                    self.model.interruptSolve()

        watch = Watch()
        form.model.includeEventhdlr(watch, "incumbents", "offers each new incumbent")
        return watch
