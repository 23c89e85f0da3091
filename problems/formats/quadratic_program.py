"""Conversion from and to qiskit-optimization's ``QuadraticProgram``.

Convention: the objective is ``constant + linearᵀx + xᵀ quadratic x`` without a half, stored
with an upper triangular matrix, so that an entry is the whole coefficient of its product;
each group is a linear equality.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from problems.errors import FormatError
from problems.formats.terms import BUDGET_REMEDY, Row, Terms, cardinality_rows, choose_cardinality
from problems.labels import labels_from_names, text_names
from problems.qubo import CardinalityQUBO

if TYPE_CHECKING:
    from qiskit_optimization import QuadraticProgram


def to_quadratic_program(problem: CardinalityQUBO, name: str = "icbs") -> QuadraticProgram:
    """Return the problem as a ``QuadraticProgram`` with binaries ``x0 … x(n-1)``.

    If all labels of the problem are identifiers, they become the variables' names. For a result
    of an optimiser, ``result.x`` is a state of the problem.
    """
    from qiskit_optimization import QuadraticProgram
    from scipy.sparse import coo_matrix

    terms, n = Terms.of(problem), problem.n
    program = QuadraticProgram(name)
    x = text_names(problem.labels, n, str.isidentifier)
    for variable in x:
        program.binary_var(variable)
    quadratic = coo_matrix((terms.values, (terms.rows, terms.cols)), shape=(n, n))
    program.minimize(terms.offset, terms.linear, quadratic.todok())
    for g, members, count in cardinality_rows(problem):
        program.linear_constraint({x[i]: 1 for i in members}, "==", count, f"k{g}")
    return program


def from_quadratic_program(
    program: QuadraticProgram,
    k: Any = None,
    groups: Any = None,
    *,
    max_n: int | None = None,
) -> CardinalityQUBO:
    """Build a problem from a program over binaries whose constraints are cardinalities.

    Variable ``i`` of the program is variable ``i`` of the problem; the objective of a program
    that maximises is negated, and a program without constraints takes ``k`` and ``groups`` from
    the caller.

    Raises
    ------
    FormatError
        If a variable is not binary, or a constraint is not a cardinality.
    """
    source = f"the quadratic program {program.name!r}"
    for variable in program.variables:
        bounds = variable.lowerbound, variable.upperbound
        if variable.vartype.name == "CONTINUOUS" or bounds != (0, 1):
            raise FormatError(
                f"{source}: variable {variable.name!r} is {variable.vartype.name} in "
                f"[{bounds[0]}, {bounds[1]}]; all must be binary"
            )
    if program.quadratic_constraints:
        raise FormatError(f"{source} has quadratic constraints; only cardinalities are supported")
    objective = program.objective
    quadratic = objective.quadratic.coefficients.tocoo()
    terms = Terms(
        quadratic.row.astype(np.int64),
        quadratic.col.astype(np.int64),
        quadratic.data.astype(np.float64),
        objective.linear.to_array().astype(np.float64),
        float(objective.constant),
    )
    rows = [_row(item, source) for item in program.linear_constraints]
    k, groups = choose_cardinality(rows, program.get_num_vars(), k, groups, source)
    maximize = objective.sense.name == "MAXIMIZE"
    labels = labels_from_names([variable.name for variable in program.variables])
    return terms.problem(k, groups, source=source, max_n=max_n, maximize=maximize, labels=labels)


def _row(item: Any, source: str) -> Row:
    if item.sense.name != "EQ":
        raise FormatError(
            f"{source}: constraint {item.name!r} is an inequality; expected Σ x_i == k, and "
            f"{BUDGET_REMEDY}"
        )
    weights = item.linear.to_dict()
    return Row(list(weights), [float(c) for c in weights.values()], float(item.rhs))
