"""Linear rows of a budget: a saving of at least a value, and counts of groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from problems.budget import BudgetQUBO
from problems.errors import FormatError
from problems.formats.terms import Row, Terms, cardinality_rows, choose_cardinality
from problems.qubo import CardinalityQUBO

#: The name of the row of a budget, which may have equal coefficients.
NAME = "budget"
#: Remedy for an inequality without a budget, for messages.
REMEDY = (
    "only a file with a budget, a row 'Σ c_i x_i >= B' that is named 'budget' or has unequal "
    "coefficients, may have others"
)
#: More than any number of variables.
_MANY = 2.0**53
_TURNED = {"=": "=", "<=": ">=", ">=": "<="}


def constraint_rows(problem: CardinalityQUBO | BudgetQUBO, free: bool = False) -> list[Row]:
    """List the rows of a problem's constraint; none if ``free``.

    A cardinality is a row ``k0``, ``k1``, … for each group with members. A budget is the row
    ``budget``, and counts that restrict anything are rows ``least0`` and ``most0``, …, or ``k0``
    where both are equal.
    """
    if not isinstance(problem, BudgetQUBO):
        rows = cardinality_rows(problem, free)
        return [Row(members, [1.0] * len(members), k, "=", f"k{g}") for g, members, k in rows]
    # A row, even if it costs nothing, tells a budget from a cardinality.
    used = np.flatnonzero(problem.costs).tolist() or list(range(min(problem.n, 1)))
    found = [Row(used, problem.costs[used].tolist(), problem.budget, ">=", NAME)] if used else []
    for g, members in enumerate(problem.group_members):
        least, most = int(problem.least[g]), int(problem.most[g])
        ones, names = [1.0] * len(members), members.tolist()
        if least == most and names:
            found.append(Row(names, ones, least, "=", f"k{g}"))
            continue
        if least > 0:
            found.append(Row(names, ones, least, ">=", f"least{g}"))
        if most < len(names):
            found.append(Row(names, ones, most, "<=", f"most{g}"))
    return found


def problem_from_rows(
    terms: Terms, rows: Sequence[Row], k: Any, groups: Any, *, source: object, **rest: Any
) -> CardinalityQUBO | BudgetQUBO:
    """Build the problem that a file's polynomial and rows describe.

    Parameters
    ----------
    terms : Terms
    rows : sequence of Row
        Equalities alone are cardinalities. With a budget, the others are counts of disjoint
        groups, and a variable may be in none.
    k, groups
        The cardinality, for a file without rows.
    source, **rest
        As for :meth:`Terms.problem`.

    Raises
    ------
    FormatError
        If the rows are neither, or a count or a budget can't be met.
    """
    n = len(terms.linear)
    turned = [_positive(row) for row in rows]
    budget = find_budget(turned)
    if budget is None:
        for row in rows:
            if row.sense != "=":
                raise not_a_count(source, row.name)
        k, groups = choose_cardinality(rows, n, k, groups, source)
        return terms.problem(k, groups, source=source, **rest)
    if k is not None:
        raise FormatError(f"{source} contains a budget; omit k, groups and free")
    constraint = _constraint(turned, budget, n, source)
    return terms.constrained(BudgetQUBO, constraint, source=source, **rest)


def find_budget(rows: Sequence[Row]) -> Row | None:
    """Return the row that is a budget: by its name, else the first with unequal coefficients."""
    above = [row for row in map(_positive, rows) if row.sense == ">="]
    named = [row for row in above if row.name == NAME]
    unequal = [row for row in above if len(set(row.coefficients) - {0.0}) > 1]
    return next(iter(named + unequal), None)


def not_a_count(source: object, name: object) -> FormatError:
    """Return the refusal of a constraint that is neither a cardinality nor a budget."""
    return FormatError(
        f"{source}: {name!r:.60} is not a hard linear equality; expected Σ x_i == k, and {REMEDY}"
    )


def _positive(row: Row) -> Row:
    """Change the sign of a row with negative coefficients."""
    if min(row.coefficients, default=0.0) >= 0 or max(row.coefficients) > 0:
        return row
    coefficients = [-c for c in row.coefficients]
    return row._replace(coefficients=coefficients, value=-row.value, sense=_TURNED[row.sense])


def _constraint(rows: Sequence[Row], budget: Row, n: int, source: object) -> dict[str, Any]:
    """Return the arguments of a :class:`BudgetQUBO` for a budget and rows that are counts."""
    costs = np.zeros(n)
    np.add.at(costs, list(budget.variables), budget.coefficients)
    groups = np.full(n, -1)
    limits: list[list[int]] = []
    for row in rows:
        if row is budget:
            continue
        where = f"{source}: row {row.name!r:.40}"
        used = [i for i, c in zip(row.variables, row.coefficients, strict=True) if c]
        weights = {c for c in row.coefficients if c}
        if len(weights) != 1 or not all(map(math.isfinite, [row.value, *weights])):
            raise FormatError(
                f"{where} is not a count of variables with equal coefficients; a problem holds "
                f"one budget, here row {budget.name!r:.40}, and counts of disjoint groups"
            )
        held = set(groups[used].tolist())
        if held == {-1}:
            held = {len(limits)}
            groups[used] = len(limits)
            limits.append([0, len(used)])
        if len(held) != 1 or -1 in held or (groups == max(held)).sum() != len(used):
            raise FormatError(
                f"{where} counts some of the variables of another row; groups must be disjoint"
            )
        _limit(limits[held.pop()], row.sense, row.value / max(weights), where)
    if len(rest := np.flatnonzero(groups < 0)):
        groups[rest] = len(limits)
        limits.append([0, len(rest)])
    least, most = np.array(limits, dtype=np.int64).reshape(-1, 2).T
    return {
        "costs": costs, "budget": budget.value, "groups": groups, "least": least, "most": most,
    }  # fmt: skip


def _limit(limits: list[int], sense: str, value: float, where: str) -> None:
    """Tighten the smallest and largest count of a group, in place."""
    value = min(max(value, -_MANY), _MANY)
    near = round(value)
    if abs(value - near) > 1e-9 * abs(value):
        if sense == "=":
            raise FormatError(f"{where} requires a count of {value}; it must be an integer")
        near = math.ceil(value) if sense == ">=" else math.floor(value)
    if sense != "<=":
        limits[0] = max(limits[0], near)
    if sense != ">=":
        limits[1] = min(limits[1], near)
