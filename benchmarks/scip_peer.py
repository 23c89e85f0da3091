"""SCIP on the same convex quadratic problem, through PySCIPOpt, for comparison."""

from __future__ import annotations

import time

import numpy as np

from problems import CardinalityQUBO
from solvers.base import Request
from solvers.exact.convex import convexify


def solve_with_scip(
    problem: CardinalityQUBO, limit: float, start: np.ndarray
) -> tuple[float, float, float]:
    """Minimise ``Σ_r (a_rᵀx)² + linearᵀx``; return seconds, energy and bound.

    The squares go into one convex constraint under a linear objective, which SCIP bounds by
    gradient cuts. Energies are brought to the order of 1000, since its tolerances are
    absolute.
    """
    import pyscipopt

    begin = time.perf_counter()
    convex = convexify(problem, Request())
    A = convex.factor if convex.factor is not None else np.linalg.cholesky(convex.matrix).T
    unit = 1000.0 / float(np.abs(convex.linear).max() * np.sqrt(problem.n))
    A, linear = A * np.sqrt(unit), convex.linear * unit
    model = pyscipopt.Model()
    model.hideOutput()
    x = [model.addVar(vtype="B") for _ in range(problem.n)]
    for g, k in enumerate(problem.cardinalities):
        model.addCons(pyscipopt.quicksum(x[i] for i in problem.group_members[g]) == k)
    z = [model.addVar(lb=None) for _ in A]
    for row, form in zip(A, z, strict=True):
        terms = pyscipopt.quicksum(float(a) * x[i] for i, a in enumerate(row) if a)
        model.addCons(terms == form)
    top = model.addVar(lb=0.0)
    model.addCons(pyscipopt.quicksum(form * form for form in z) <= top)
    model.setObjective(pyscipopt.quicksum([top, *(c * v for c, v in zip(linear, x, strict=True))]))
    hint = model.createSol()
    for variable, value in zip(x, start, strict=True):
        model.setSolVal(hint, variable, float(value))
    for row, form in zip(A, z, strict=True):
        model.setSolVal(hint, form, float(row @ start))
    model.setSolVal(hint, top, float(((A @ start) ** 2).sum()) + 1e-6)
    model.addSol(hint)
    model.setParam("limits/time", max(limit - (time.perf_counter() - begin), 0.1))
    model.optimize()
    best = model.getBestSol()
    state = np.array([round(model.getSolVal(best, v)) for v in x], dtype=np.uint8)
    bound = model.getDualbound() / unit + convex.constant + problem.offset
    return time.perf_counter() - begin, problem.energy(state), bound
