"""Formulations of a problem for SCIP, and the floating-point error of its bounds.

SCIP accepts linear objectives only, so the quadratic becomes a constraint. SCIP would linearise
``xᵀQx ≤ t`` product by product, with weaker bounds than either formulation here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.base import Request
from solvers.cpsat.model import largest
from solvers.exact.convex import convexify, linear_forms

Array = npt.NDArray[Any]

#: Objectives are scaled to about this size, since SCIP's tolerances are absolute.
SIZE = 2.0**16
#: Largest reduced cost of the wrong sign (``numerics/dualfeastol``): the smallest value that
#: SoPlex accepts.
DUAL_TOLERANCE = 1e-10
#: Relative difference below which SCIP treats two values as equal (``numerics/epsilon``).
_EPSILON = 1e-9


@dataclass(frozen=True)
class ScipModel:
    """A SCIP model whose objective, over ``scale``, is the energy less ``constant``."""

    model: Any
    """``pyscipopt.Model``."""
    x: list[Any]
    """SCIP's variables, in the order of the problem's."""
    scale: float
    constant: float
    reach: float
    """Sum of the lengths of all variables' domains, in units of the objective."""
    rounding: float
    """Largest energy that rounded coefficients may add to a feasible state."""
    complete: Callable[[Array], list[tuple[Any, float]]]
    """Function from a state to the values of all variables."""

    def lower(self, objective: float) -> float:
        """Return the bound on the energy that follows from SCIP's dual bound.

        A dual bound follows from the dual solutions of linear programs. Its error is at most the
        tolerance of reduced costs times the length of each variable's domain, and SCIP drops
        nodes within its epsilon of the incumbent.
        """
        error = DUAL_TOLERANCE * self.reach + _EPSILON * max(abs(objective), 1.0)
        return (objective - error) / self.scale + self.constant - self.rounding


def squares(problem: CardinalityQUBO, request: Request, start: Array) -> ScipModel | None:
    """Minimise ``t + lᵀx`` where ``Σ_r z_r² ≤ t`` and ``z = Bx``.

    ``B`` is the factor of a factored problem. If that has more rows than columns, or the problem
    is dense, it is made of the eigenvectors of a convex quadratic of the same energies
    (:mod:`solvers.exact.convex`) times the roots of their eigenvalues. SCIP bounds the one convex
    constraint by gradient cuts.

    Parameters
    ----------
    problem : CardinalityQUBO
    request : Request
        Building stops at its time limit; the result is then None.
    start : shape (n,)
        A feasible state; ``t`` is bounded by its value for this state.
    """
    from pyscipopt import quicksum

    n, k = problem.n, problem.k
    B, linear, constant, rounding = _directions(problem, request)
    least = float(np.sort(linear)[:k].sum())
    top = float(((B @ start) ** 2).sum() + linear @ start - least)
    size = max(top, float(np.abs(linear).max(initial=0)))
    scale = power_of_four(SIZE / size) if size else 1.0
    B, linear, top = B * np.sqrt(scale), linear * scale, top * scale
    ordered = np.sort(B, axis=1)
    low, high = ordered[:, :k].sum(axis=1), ordered[:, n - k :].sum(axis=1)

    model, x = _states(problem)
    z = []
    for row, least_sum, most_sum in zip(B, low, high, strict=True):
        if request.remaining <= 0:
            return None
        margin = 1e-6 + 1e-9 * max(-least_sum, most_sum)
        form = model.addVar(lb=float(least_sum - margin), ub=float(most_sum + margin))
        terms = (float(b) * x[i] for i, b in enumerate(row) if b)
        model.addCons(quicksum(terms) == form)
        z.append(form)
    t = model.addVar(lb=0.0, ub=top * (1 + 1e-6) + 1e-3)
    model.addCons(quicksum(form * form for form in z) <= t)
    model.setObjective(quicksum([t, *(float(c) * v for c, v in zip(linear, x, strict=True))]))

    def complete(state: Array) -> list[tuple[Any, float]]:
        values = B @ state.astype(np.float64)
        total = float(values @ values) * (1 + 1e-12)
        pairs = [*zip(x, state, strict=True), *zip(z, values, strict=True), (t, total)]
        return [(variable, float(value)) for variable, value in pairs]

    reach = n + float((high - low).sum()) + top
    return ScipModel(model, x, scale, constant + problem.offset, reach, rounding, complete)


def _directions(problem: CardinalityQUBO, request: Request) -> tuple[Array, Array, float, float]:
    """Return ``B, l, c, r`` such that ``‖Bx‖² + lᵀx + c`` exceeds the energy by at most ``r``."""
    if problem.is_factored and len(problem.A) <= problem.n:
        return problem.A.astype(np.float64), problem.linear, 0.0, 0.0
    convex = convexify(problem, request)
    P = convex.block(np.arange(problem.n))
    B = linear_forms(P)
    rounding = largest(B.T @ B - P, problem.k) + convex.slack
    return B, convex.linear, convex.constant, rounding


def products(problem: CardinalityQUBO, request: Request, start: Array) -> ScipModel | None:
    """Minimise ``Σ 2Q_ij y_ij + Σ Q_ii x_i`` with a variable for each product.

    The objective pulls ``y_ij`` down where its coefficient is positive and up where it is
    negative, so that one side of the McCormick envelope suffices: ``y ≥ x_i + x_j - 1``, or
    ``y ≤ x_i`` and ``y ≤ x_j``.

    Parameters
    ----------
    problem : CardinalityQUBO
    request : Request
        Building stops at its time limit; the result is then None.
    start : shape (n,)
        Not used.
    """
    from pyscipopt import quicksum

    first, second = problem.peaks
    # Not the largest of Q, which is rounding if factor and linear terms cancel.
    size = len(problem.A) * first**2 + second if problem.is_factored else first
    scale = power_of_four(SIZE / size) if size else 1.0
    Q = problem.float64_matrix() * scale
    model, x = _states(problem)
    y = {}
    for i in range(problem.n):
        if request.remaining <= 0:
            return None
        for j in map(int, np.flatnonzero(Q[i, :i])):
            y[i, j] = product = model.addVar(lb=0.0, ub=1.0)
            if Q[i, j] > 0:
                model.addCons(product >= x[i] + x[j] - 1)
            else:
                model.addCons(product <= x[i])
                model.addCons(product <= x[j])
    terms = [float(2 * Q[pair]) * product for pair, product in y.items()]
    terms += [float(c) * v for c, v in zip(Q.diagonal(), x, strict=True)]
    model.setObjective(quicksum(terms))

    def complete(state: Array) -> list[tuple[Any, float]]:
        values = [(v, float(s)) for v, s in zip(x, state, strict=True)]
        return values + [(v, float(state[i] & state[j])) for (i, j), v in y.items()]

    return ScipModel(model, x, scale, problem.offset, problem.n + len(y), 0.0, complete)


def _states(problem: CardinalityQUBO) -> tuple[Any, list[Any]]:
    """Return a model with binary variables and the cardinality constraints."""
    import pyscipopt

    model = pyscipopt.Model()
    model.hideOutput()
    x = [model.addVar(vtype="B") for _ in range(problem.n)]
    for members, wanted in zip(problem.group_members, problem.cardinalities, strict=True):
        if len(members):
            model.addCons(pyscipopt.quicksum(x[i] for i in members) == int(wanted))
    return model, x


def power_of_four(value: float) -> float:
    """Round down to a power of 4, so that multiplying a factor by its root is exact."""
    return float(4.0 ** np.floor(np.log2(value) / 2))
