"""CP-SAT under a budget, on the variables that a convex relaxation leaves undecided."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from problems import BudgetQUBO
from solvers.base import Outcome, Request
from solvers.cpsat.model import RANGE, Array, CpSatModel, integers
from solvers.cpsat.squares import minimise_squares, rounding_errors
from solvers.exact.budget import BudgetRun, Tree
from solvers.exact.budget_search import settle
from solvers.exact.convex import linear_forms
from solvers.solution import Stop

if TYPE_CHECKING:
    from solvers.cpsat.solver import CpSat

#: Up to this many variables, products are used; see :class:`solvers.cpsat.CpSat`.
_FEW = 24


def search_budget(options: CpSat, problem: BudgetQUBO, request: Request) -> Outcome:
    """Fix variables by reduced costs, build a model of the rest, and solve it."""
    begin = time.perf_counter()
    run = BudgetRun(problem, request, 0.0, None)
    tree = None if run.limited() else run.tree()
    model = None
    if tree is not None and len(tree.index) and not run.limited():
        model = _model(options, tree)
    elif tree is not None and not run.limited():
        run.bound = max(run.bound, run.cutoff)
    build = time.perf_counter() - begin
    info: dict[str, Any] = {}
    if model is not None and tree is not None and not run.limited():
        info = options.solve_model(model, _Watcher(run, tree))
    return settle(run, build, options.tolerance, info)


class _Watcher:
    """Incumbents and bounds of CP-SAT, passed on to the run."""

    def __init__(self, run: BudgetRun, tree: Tree) -> None:
        self.run, self.tree, self.request = run, tree, run.request

    @property
    def start(self) -> Array:
        """State of the tree's variables to start from."""
        state: Array = self.run.x[self.tree.index]
        return state

    def offer_state(self, state: Array) -> bool:
        """Pass on a state; return whether the search must stop."""
        x = self.tree.lift(state)
        if self.run.problem.is_feasible(x):
            self.run.offer(x)
        return self.run.stop is Stop.INTERRUPTED

    def close(self, lower: float | None, optimal: bool) -> None:
        """Raise the bound; states that were fixed away are at the cutoff or above."""
        if lower is not None:
            self.run.bound = max(self.run.bound, min(lower, self.run.cutoff))
        if not optimal and self.run.stop is Stop.PROVEN:
            self.run.stop = Stop.TIME_LIMIT


def _model(options: CpSat, tree: Tree) -> CpSatModel:
    """Build the model of a tree's problem: objective, budget and counts."""
    from ortools.sat.python import cp_model

    n = len(tree.index)
    model = cp_model.CpModel()
    x = [model.new_bool_var("") for _ in range(n)]
    if tree.missing:
        model.add(cp_model.LinearExpr.weighted_sum(x, tree.costs.tolist()) >= int(tree.missing))
    for g in np.unique(tree.groups):
        members = np.flatnonzero(tree.groups == g)
        low, high = int(tree.least[g]), int(tree.most[g])
        if low > 0 or high < len(members):
            model.add_linear_constraint(sum(x[i] for i in members), low, high)
    few = options.formulation == "auto" and n <= _FEW
    build = _products if few or options.formulation == "products" else _squares
    return build(options, tree, model, x)


def _products(options: CpSat, tree: Tree, model: Any, x: list[Any]) -> CpSatModel:
    """State the objective with a variable for each product; see :mod:`solvers.cpsat.products`."""
    from ortools.sat.python import cp_model

    P, linear, n = tree.problem.P, tree.problem.linear, len(x)
    diagonal = P.diagonal() + linear
    off = P - np.diag(P.diagonal())
    total = float(np.abs(off).sum() + np.abs(diagonal).sum())
    most = float(max(2 * np.abs(off).max(), np.abs(diagonal).max()))
    scale = 2.0 ** np.floor(np.log2(min(2.0**options.bits / most, RANGE / total))) if total else 1.0
    double, ones = integers(2 * off, scale), integers(diagonal, scale)
    y: dict[tuple[int, int], Any] = {}
    for i in range(n):
        for j in map(int, np.flatnonzero(double[i, :i])):
            y[j, i] = product = model.new_bool_var("")
            if double[i, j] > 0:
                model.add_bool_or(~x[i], ~x[j], product)
            else:
                model.add_implication(product, x[i])
                model.add_implication(product, x[j])
    terms = [*y.values(), *x]
    weights = [int(double[pair]) for pair in y] + [int(c) for c in ones]
    model.minimize(cp_model.LinearExpr.weighted_sum(terms, weights))
    error = np.abs(double / (2 * scale) - off).sum() + np.abs(ones / scale - diagonal).sum()
    rounding = float(error) + 4 * np.finfo(float).eps * total

    def complete(state: Array) -> list[tuple[Any, int]]:
        values = [(x[i], int(state[i])) for i in range(n)]
        return values + [(v, int(state[i] & state[j])) for (i, j), v in y.items()]

    return CpSatModel(model, x, scale, tree.constant, rounding, rounding, complete)


def _squares(options: CpSat, tree: Tree, model: Any, x: list[Any]) -> CpSatModel:
    """State the objective as a sum of squares; see :mod:`solvers.cpsat.squares`.

    Without a fixed number of ones the forms have a wider range, and more is lost by rounding:
    about 1e-5 of the energy, which the bound is lowered by.
    """
    P, linear = tree.problem.P, tree.problem.linear
    directions = linear_forms(P)
    highest, lowest = np.maximum(directions, 0).sum(axis=1), np.minimum(directions, 0).sum(axis=1)
    reach = np.maximum(highest**2, lowest**2).sum()
    scale = float(np.sqrt(RANGE / (float(reach + np.abs(linear).sum()) or RANGE)))
    forms, ones = integers(directions, scale), integers(linear, scale**2)
    ranges = np.minimum(forms, 0).sum(axis=1), np.maximum(forms, 0).sum(axis=1)
    complete = minimise_squares(model, x, forms, ones, ranges, tree.y, options.tangents)
    added = rounding_errors(forms, ones, scale, P, linear)
    # No state's sum of errors exceeds that of the positive, or of the negative ones.
    rounding, lowering = float(added[added > 0].sum()), -float(added[added < 0].sum())
    return CpSatModel(model, x, scale**2, tree.constant, rounding, lowering, complete)
