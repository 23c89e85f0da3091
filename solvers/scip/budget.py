"""SCIP under a budget, on the variables that a convex relaxation leaves undecided."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from problems import BudgetQUBO
from solvers.base import Outcome, Request
from solvers.errors import BackendError
from solvers.exact.budget import BudgetRun, Tree
from solvers.exact.budget_search import settle
from solvers.exact.convex import linear_forms
from solvers.interrupt import interruptible
from solvers.scip.model import SIZE, Array, ScipModel, power_of_four
from solvers.solution import Stop


def search_budget(problem: BudgetQUBO, request: Request, tolerance: float) -> Outcome:
    """Fix variables by reduced costs, build a model of the rest, and solve it."""
    begin = time.perf_counter()
    run = BudgetRun(problem, request, 0.0, None)
    tree = None if run.limited() else run.tree()
    form = None
    if tree is not None and len(tree.index) and not run.limited():
        form = _squares(tree, run.x[tree.index])
    elif tree is not None and not run.limited():
        run.bound = max(run.bound, run.cutoff)
    build = time.perf_counter() - begin
    info: dict[str, Any] = {}
    if form is not None and tree is not None and not run.limited():
        info = _solve(form, run, tree)
    return settle(run, build, tolerance, info)


def _squares(tree: Tree, start: Array) -> ScipModel:
    """Minimise ``t + lᵀx`` where ``Σ_r z_r² ≤ t`` and ``z = Bx``; see :mod:`solvers.scip.model`."""
    import pyscipopt

    P, linear, n = tree.problem.P, tree.problem.linear, len(tree.index)
    B = linear_forms(P)
    error = B.T @ B - P
    rounding = float(error[error > 0].sum())
    least = float(np.minimum(linear, 0).sum())
    top = float(((B @ start) ** 2).sum() + linear @ start - least)
    size = max(top, float(np.abs(linear).max(initial=0)))
    scale = power_of_four(SIZE / size) if size else 1.0
    B, linear, top = B * np.sqrt(scale), linear * scale, top * scale
    low, high = np.minimum(B, 0).sum(axis=1), np.maximum(B, 0).sum(axis=1)

    model = pyscipopt.Model()
    model.hideOutput()
    x = [model.addVar(vtype="B") for _ in range(n)]
    _constrain(model, x, tree)
    z = []
    for row, least_sum, most_sum in zip(B, low, high, strict=True):
        margin = 1e-6 + 1e-9 * max(-least_sum, most_sum)
        z.append(model.addVar(lb=float(least_sum - margin), ub=float(most_sum + margin)))
        terms = (float(b) * x[i] for i, b in enumerate(row) if b)
        model.addCons(pyscipopt.quicksum(terms) == z[-1])
    t = model.addVar(lb=0.0, ub=top * (1 + 1e-6) + 1e-3)
    model.addCons(pyscipopt.quicksum(form * form for form in z) <= t)
    objective = [t, *(float(c) * v for c, v in zip(linear, x, strict=True))]
    model.setObjective(pyscipopt.quicksum(objective))

    def complete(state: Array) -> list[tuple[Any, float]]:
        forms = B @ state.astype(np.float64)
        total = float(forms @ forms) * (1 + 1e-12)
        pairs = [*zip(x, state, strict=True), *zip(z, forms, strict=True), (t, total)]
        return [(variable, float(value)) for variable, value in pairs]

    reach = n + float((high - low).sum()) + top
    return ScipModel(model, x, scale, tree.constant, reach, rounding, complete)


def _constrain(model: Any, x: list[Any], tree: Tree) -> None:
    """Add budget and counts.

    SCIP's tolerance of a row is relative. The budget is divided by the largest cost, and a state
    that misses it within the tolerance is dropped where it is offered.
    """
    import pyscipopt

    if tree.missing:
        unit = float(max(1, tree.costs.max()))
        terms = (float(c) / unit * v for c, v in zip(tree.costs, x, strict=True) if c)
        model.addCons(pyscipopt.quicksum(terms) >= tree.missing / unit)
    for g in np.unique(tree.groups):
        members = np.flatnonzero(tree.groups == g)
        total = pyscipopt.quicksum(x[i] for i in members)
        if tree.least[g] == tree.most[g]:
            model.addCons(total == int(tree.least[g]))
            continue
        if tree.least[g] > 0:
            model.addCons(total >= int(tree.least[g]))
        if tree.most[g] < len(members):
            model.addCons(total <= int(tree.most[g]))


def _solve(form: ScipModel, run: BudgetRun, tree: Tree) -> dict[str, Any]:
    """Run SCIP from the incumbent; return its report."""
    from solvers.scip.solver import STOPS, configure

    model = form.model
    configure(model, run.request)
    solution = model.createSol()
    for variable, value in form.complete(run.x[tree.index]):
        model.setSolVal(solution, variable, value)
    model.addSol(solution)
    interruptible(model.optimizeNogil, model.interruptSolve, run.request)
    for found in model.getSols():
        values = np.rint([model.getSolVal(found, v) for v in form.x]).astype(np.uint8)
        x = tree.lift(values)
        if run.problem.is_feasible(x):
            run.offer(x)
    status, bound = model.getStatus(), float(model.getDualbound())
    if status in ("infeasible", "unbounded", "inforunbd"):
        raise BackendError(f"SCIP reports that the model is {status}")
    info: dict[str, Any] = {}
    if not model.isInfinity(abs(bound)):
        lower = form.lower(bound)
        run.bound = max(run.bound, min(lower, run.cutoff))
        info["lowered"] = bound / form.scale + form.constant - lower
    if run.stop is Stop.PROVEN:
        run.stop = STOPS.get(status, Stop.CONVERGED)
    return info | {
        "scip_status": status,
        "variables": model.getNVars(transformed=False),
        "nodes": model.getNTotalNodes(),
        "lp_iterations": model.getNLPIterations(),
    }
