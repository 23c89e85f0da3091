"""Formulation as a sum of squares of linear forms, with one variable per form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from problems import CardinalityQUBO
from solvers.base import Request
from solvers.cpsat.model import RANGE, Array, CpSatModel, add_cardinalities, integers, largest
from solvers.exact.convex import convexify, linear_forms
from solvers.exact.root import solve_root

Complete = Callable[[Array], list[tuple[Any, int]]]


def squares(problem: CardinalityQUBO, request: Request, start: Array, tangents: int) -> CpSatModel:
    """Build a model of the energy ``Σ_r z_r² + lᵀx`` with integer forms ``z_r = b_rᵀx``.

    Uses the convex quadratic ``xᵀPx + lᵀx`` with the problem's energies
    (:mod:`solvers.exact.convex`); the ``b_r`` are the eigenvectors of ``P`` times the roots of
    their eigenvalues, scaled and rounded, so that at most n squares replace n²/2 products.
    CP-SAT's own relaxation of ``z²`` is far too weak; tangents ``z² ≥ 2cz - c²``, dense around
    the minimum of the continuous relaxation, bring its bound very close to the convex one.

    Parameters
    ----------
    problem : CardinalityQUBO
    request : Request
        Its time limit applies to the search for a convex form.
    start : shape (n,)
        A feasible state.
    tangents : int
        Tangents on either side of the middle one.
    """
    from ortools.sat.python import cp_model

    n, k = problem.n, problem.k
    convex = convexify(problem, request)
    y = solve_root(convex, problem.cardinalities, start, request).y
    P, linear = convex.block(np.arange(n)), convex.linear
    directions = linear_forms(P)
    # Squares and linear terms share one scale, the square of that of the forms.
    reach = (np.sort(np.abs(directions), axis=1)[:, n - k :].sum(axis=1) ** 2).sum()
    scale = float(np.sqrt(RANGE / (float(reach + np.abs(linear).sum()) or RANGE)))
    forms, ones = integers(directions, scale), integers(linear, scale**2)
    model = cp_model.CpModel()
    x = [model.new_bool_var("") for _ in range(n)]
    add_cardinalities(model, x, problem)
    ordered = np.sort(forms, axis=1)
    low, high = ordered[:, :k].sum(axis=1), ordered[:, n - k :].sum(axis=1)
    complete = minimise_squares(model, x, forms, ones, (low, high), y, tangents)
    added = rounding_errors(forms, ones, scale, P, linear)
    rounding, lowering = largest(added, k) + convex.slack, largest(-added, k)
    constant = convex.constant + problem.offset
    return CpSatModel(model, x, scale**2, constant, rounding, lowering, complete)


def minimise_squares(
    model: Any,
    x: list[Any],
    forms: Array,
    ones: Array,
    ranges: tuple[Array, Array],
    y: Array,
    tangents: int,
) -> Complete:
    """Minimise ``Σ_r z_r² + onesᵀx`` with a variable for each form ``z_r`` and its square.

    Parameters
    ----------
    model : CpModel
    x : list of variables
    forms : ndarray of int64, shape (r, n)
    ones : ndarray of int64, shape (n,)
    ranges : pair of ndarrays of int64, shape (r,)
        Smallest and largest value of each form over the feasible states.
    y, tangents
        As for :func:`tangent_points`.

    Returns
    -------
    callable
        The values of all variables at a state, shape (n,).
    """
    from ortools.sat.python import cp_model

    rows: list[tuple[Any, Any, Array]] = []
    for form, low, high in zip(forms, ranges[0].tolist(), ranges[1].tolist(), strict=True):
        z = model.new_int_var(low, high, "")
        square = model.new_int_var(0, max(low * low, high * high), "")
        model.add(cp_model.LinearExpr.weighted_sum(x, form.tolist()) == z)
        model.add_multiplication_equality(square, [z, z])
        for c in tangent_points(form, y, tangents):
            if low <= c <= high:
                model.add(square >= 2 * c * z - c * c)
        rows.append((z, square, form))
    terms = [square for _, square, _ in rows] + x
    weights = [1] * len(rows) + ones.tolist()
    model.minimize(cp_model.LinearExpr.weighted_sum(terms, weights))

    def complete(state: Array) -> list[tuple[Any, int]]:
        hint = [(variable, int(value)) for variable, value in zip(x, state, strict=True)]
        for z, square, form in rows:
            value = int(form @ state.astype(np.int64))
            hint += [(z, value), (square, value * value)]
        return hint

    return complete


def rounding_errors(forms: Array, ones: Array, scale: float, P: Array, linear: Array) -> Array:
    """Return what integer forms and linear terms add to each coefficient, shape (n, n)."""
    used = forms.astype(np.float64) / scale
    added: Array = used.T @ used - P
    added[np.diag_indices(len(P))] += ones / scale**2 - linear
    return added


def tangent_points(form: Array, y: Array, tangents: int) -> list[int]:
    """Return the points of tangents of ``z²``: at ``y``, and at increasing distances.

    The step is half the standard deviation of ``z`` if the fractional variables were rounded at
    random, but at least half of the mean effect of one variable.
    """
    middle = int(np.rint(form @ y))
    spread = np.sqrt(float((form.astype(np.float64) ** 2) @ (y * (1 - y))))
    step = 0.5 * max(2.0, float(spread), float(np.abs(form).mean()))
    offsets = {int(step * 1.5**t) for t in range(tangents)}
    return sorted({middle} | {middle + o for o in offsets} | {middle - o for o in offsets})
