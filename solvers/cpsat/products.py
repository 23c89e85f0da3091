"""Linearisation with one variable per product, ``y_ij = x_i x_j``."""

from __future__ import annotations

from typing import Any

import numpy as np

from problems import CardinalityQUBO
from solvers.base import Request
from solvers.cpsat.model import RANGE, Array, CpSatModel, add_cardinalities, integers, largest

Pairs = dict[tuple[int, int], Any]


def products(problem: CardinalityQUBO, request: Request, rlt: bool, bits: int) -> CpSatModel | None:
    """Build a model that linearises every product.

    The objective pulls ``y_ij`` down where its coefficient is positive and up where it is
    negative, so that the constraints of the McCormick envelope on that side suffice:
    ``y ≥ x_i + x_j - 1``, or ``y ≤ x_i`` and ``y ≤ x_j``. With ``rlt``, both sides are added for
    every pair, and so is the product of each cardinality with each variable,
    ``Σ_{j∈g} y_ij = k_g x_i`` (the first level of the reformulation-linearisation technique:
    Sherali & Adams, SIAM J. Discrete Math. 3, 1990).

    Parameters
    ----------
    problem : CardinalityQUBO
    request : Request
        Building stops at its time limit; None is returned then.
    rlt : bool
        See above.
    bits : int
        Bits of the largest scaled coefficient; fewer are used if sums would overflow.
    """
    from ortools.sat.python import cp_model

    n = problem.n
    Q = problem.float64_matrix()
    total, most = float(np.abs(Q).sum()), 2 * float(np.abs(Q).max())
    scale = 2.0 ** np.floor(np.log2(min(2.0**bits / most, RANGE / total))) if total else 1.0
    double, ones = integers(2 * Q, scale), integers(Q.diagonal(), scale)
    model = cp_model.CpModel()
    x = [model.new_bool_var("") for _ in range(n)]
    add_cardinalities(model, x, problem)
    y: Pairs = {}
    for i in range(n):
        if request.remaining <= 0:
            return None
        for j in map(int, range(i) if rlt else np.flatnonzero(double[i, :i])):
            y[j, i] = product = model.new_bool_var("")
            if rlt or double[i, j] > 0:
                model.add_bool_or(~x[i], ~x[j], product)
            if rlt or double[i, j] < 0:
                model.add_implication(product, x[i])
                model.add_implication(product, x[j])
    if rlt and not _add_row_products(model, x, y, problem, request):
        return None
    terms = [*y.values(), *x]
    weights = [int(double[pair]) for pair in y] + [int(c) for c in ones]
    model.minimize(cp_model.LinearExpr.weighted_sum(terms, weights))
    # Rounding errors of the coefficients; forming Q from factors adds others.
    added = double / (2 * scale) - Q
    np.fill_diagonal(added, ones / scale - Q.diagonal())
    depth = problem.A.shape[0] + 4 if problem.is_factored else 4
    rounding = largest(added, problem.k) + depth * np.finfo(float).eps * total

    def complete(state: Array) -> list[tuple[Any, int]]:
        values = [(x[i], int(state[i])) for i in range(n)]
        return values + [(v, int(state[i] & state[j])) for (i, j), v in y.items()]

    lowering = largest(-added, problem.k)
    return CpSatModel(model, x, scale, problem.offset, rounding, lowering, complete)


def _add_row_products(
    model: Any, x: list[Any], y: Pairs, problem: CardinalityQUBO, request: Request
) -> bool:
    """Multiply each cardinality by each variable: Σ_{j∈g, j≠i} y_ij = (k_g - [i∈g]) x_i."""
    for g, k in enumerate(problem.cardinalities):
        members = problem.group_members[g].tolist()
        for i in range(problem.n):
            if request.remaining <= 0:
                return False
            row = sum(y[min(i, j), max(i, j)] for j in members if j != i)
            model.add(row == int(k - (problem.groups[i] == g)) * x[i])
    return True
