"""Gurobi as a solver of one's own: a commercial backend in one file, without a distribution.

``pip install gurobipy`` brings a licence for up to 200 variables with products. In this folder,
``icbs solve block.npz --solver gurobi_solver:Gurobi --time-limit 10`` solves a problem, and
``icbs prune … --solver gurobi_solver:Gurobi --block-size 128`` prunes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from problems import CardinalityQUBO
from solvers import (
    BackendError,
    Capabilities,
    OptionError,
    Outcome,
    Request,
    Solver,
    Stop,
    UnsupportedError,
)

#: Gurobi's code for a model beyond the size that a licence allows.
_TOO_LARGE = 10010
#: Share of the sum of all absolute coefficients that Gurobi's tolerances may add to a bound.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Gurobi(Solver):
    """Branch and bound with Gurobi on ``xᵀQx`` without reformulation, convex or not.

    Parameters
    ----------
    threads : int
        Threads of the search; 0 for all cores.
    """

    threads: int = 1

    name: ClassVar[str] = "gurobi"
    summary: ClassVar[str] = "Gurobi's branch and bound (an example; needs a licence)"
    requires: ClassVar[dict[str, str]] = {"gurobipy": "gurobipy>=11"}
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True, groups=True, num_reads=False, callback=True
    )

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise OptionError(f"threads is {self.threads}; it must be 0 or more")

    def check_ready(self) -> None:
        """Look for a licence, before a pruning run starts any work."""
        _environment().close()

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """State the problem, search, and report each new incumbent."""
        import gurobipy
        from gurobipy import GRB

        with _environment() as env, gurobipy.Model(env=env) as model:
            x = model.addMVar(problem.n, vtype=GRB.BINARY)
            for members, k in zip(problem.group_members, problem.cardinalities, strict=True):
                if len(members):
                    model.addConstr(x[members].sum() == int(k))
            # Gurobi's tolerances are absolute: coefficients are brought to the order of 1000.
            scale = 1000.0 / (float(np.abs(problem.Q).max()) or 1.0)
            Q = problem.Q.astype(np.float64) * scale
            model.setObjective(x @ Q @ x, GRB.MINIMIZE)
            model.Params.Threads = self.threads
            model.Params.MIPGap = 0.0
            model.Params.IntFeasTol = 1e-9
            if request.seed is not None:
                model.Params.Seed = request.seed % 2_000_000_000
            if request.time_limit is not None:
                model.Params.TimeLimit = request.remaining
            if request.initial_state is not None:
                x.Start = request.initial_state
            watch = _Watch(problem, request, x)
            try:
                model.optimize(watch)
            except gurobipy.GurobiError as error:
                if error.errno == _TOO_LARGE:
                    raise UnsupportedError(
                        f"this licence of Gurobi does not take {problem.n} variables with "
                        "products; choose smaller blocks, or get another licence"
                    ) from error
                raise BackendError(f"Gurobi failed: {error}") from error
            if watch.error is not None:
                raise watch.error
            return self._outcome(problem, model, x, scale)

    def _outcome(self, problem: CardinalityQUBO, model: Any, x: Any, scale: float) -> Outcome:
        """Return the best state, and a bound lowered by what tolerances may have added to it."""
        from gurobipy import GRB

        states, energy, bound = np.zeros((0, problem.n), np.uint8), np.inf, -np.inf
        if model.SolCount:
            states = np.rint(x.X).astype(np.uint8)[None]
            energy = problem.energy(states[0])
        if abs(model.ObjBound) < GRB.INFINITY:
            lowered = float(model.ObjBound) - _TOLERANCE * scale * float(np.abs(problem.Q).sum())
            bound = lowered / scale + problem.offset
        left = energy - bound
        proven = model.Status == GRB.OPTIMAL and left <= 1e-6 * abs(energy - problem.offset)
        stops = {GRB.TIME_LIMIT: Stop.TIME_LIMIT, GRB.INTERRUPTED: Stop.INTERRUPTED}
        return Outcome(
            states,
            Stop.PROVEN if proven else stops.get(model.Status, Stop.CONVERGED),
            proven=proven,
            bound=None if bound == -np.inf else bound,
            info={"nodes": float(model.NodeCount), "status": int(model.Status)},
        )


class _Watch:
    """Gurobi's callback: reports incumbents, and stops where the framework asks for it."""

    def __init__(self, problem: CardinalityQUBO, request: Request, x: Any) -> None:
        self.problem, self.request, self.x = problem, request, x
        self.lowest = np.inf
        self.error: BaseException | None = None

    def __call__(self, model: Any, where: int) -> None:
        """Look at what Gurobi has found; it would print and forget what is raised here."""
        from gurobipy import GRB

        try:
            stop = self.request.interrupted
            if where == GRB.Callback.MIPSOL:
                state = np.rint(model.cbGetSolution(self.x)).astype(np.uint8)
                energy = self.problem.energy(state)
                if energy < self.lowest:
                    self.lowest = energy
                    stop = self.request.report(energy) or stop
        except BaseException as error:
            self.error, stop = error, True
        if stop:
            model.terminate()


def _environment() -> Any:
    """Return an environment that prints nothing.

    Raises
    ------
    BackendError
        If there is no valid licence.
    """
    import gurobipy

    try:
        return gurobipy.Env(params={"OutputFlag": 0})
    except gurobipy.GurobiError as error:
        raise BackendError(
            f"Gurobi has no valid licence here: {error}; see gurobi.com/free-trial, or set "
            "GRB_LICENSE_FILE"
        ) from error
