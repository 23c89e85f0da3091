"""Conversion from and to dimod's binary and constrained quadratic models (BQM, CQM).

Conventions of dimod: a bias of ``(u, v)`` is the whole coefficient of ``x_u x_v``, so that
``bias = 2 Q_uv``; linear biases are ``Q``'s diagonal. A BQM holds no cardinality, so ``k`` is
a parameter when one is read; a CQM holds each group as a linear equality. Labels are kept.

Their files are read by :mod:`problems.formats.bqm_file`, :mod:`problems.formats.bqm_json` and
:mod:`problems.formats.cqm_file`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from problems.budget import BudgetQUBO
from problems.errors import FormatError, InvalidProblemError
from problems.formats.rows import constraint_rows, not_a_count, problem_from_rows
from problems.formats.terms import (
    Row,
    Terms,
    check_size,
    choose_cardinality,
    natural_order,
)
from problems.labels import checked_labels
from problems.qubo import CardinalityQUBO

if TYPE_CHECKING:
    import dimod


#: Senses of dimod's constraints.
SENSES = {"==": "=", ">=": ">=", "<=": "<="}


def to_bqm(
    problem: CardinalityQUBO | BudgetQUBO, labels: Sequence[Hashable] | None = None
) -> dimod.BinaryQuadraticModel:
    """Return the energy, without the cardinality, as a BINARY model.

    Parameters
    ----------
    problem : CardinalityQUBO
    labels : sequence of hashables, optional
        Names of the variables; by default the problem's labels, or 0 … n - 1.
    """
    import dimod

    terms = Terms.of(problem)
    quadratic = terms.rows, terms.cols, terms.values
    order = _names(problem, labels)
    return dimod.BinaryQuadraticModel.from_numpy_vectors(
        terms.linear, quadratic, terms.offset, dimod.BINARY, variable_order=order
    )


def from_bqm(
    bqm: dimod.BinaryQuadraticModel,
    k: Any,
    groups: Any = None,
    *,
    max_n: int | None = None,
) -> CardinalityQUBO:
    """Build a problem from a model and a cardinality.

    Variables are ordered by :func:`variable_order`. A SPIN model is read with ``s = 2x - 1``.

    Raises
    ------
    FormatError
        If the model is too large for its couplings, or k or groups don't match it.
    """
    import dimod

    binary = bqm.change_vartype(dimod.BINARY, inplace=False)
    labels = variable_order(binary.variables)
    vectors = binary.to_numpy_vectors(variable_order=labels)
    terms = Terms(
        vectors.quadratic.row_indices.astype(np.int64),
        vectors.quadratic.col_indices.astype(np.int64),
        vectors.quadratic.biases.astype(np.float64),
        vectors.linear_biases.astype(np.float64),
        float(vectors.offset),
    )
    return terms.problem(k, groups, source="the BQM", max_n=max_n, labels=valid_labels(labels))


def to_cqm(
    problem: CardinalityQUBO | BudgetQUBO,
    labels: Sequence[Hashable] | None = None,
    *,
    free: bool = False,
) -> dimod.ConstrainedQuadraticModel:
    """Return the problem with one equality, labelled ``k0``, ``k1``, …, for each group.

    A budget is an inequality ``budget``; see :func:`problems.formats.rows.constraint_rows`.

    There are no equalities if ``free``. Variables are named as by :func:`to_bqm`.
    """
    import dimod

    names = _names(problem, labels)
    cqm = dimod.ConstrainedQuadraticModel()
    cqm.set_objective(to_bqm(problem, names))
    for row in constraint_rows(problem, free):
        sense = "==" if row.sense == "=" else row.sense
        terms = [(names[i], c) for i, c in zip(row.variables, row.coefficients, strict=True)]
        cqm.add_constraint(terms, sense, row.value, label=row.name)
    return cqm


def from_cqm(
    cqm: dimod.ConstrainedQuadraticModel,
    k: Any = None,
    groups: Any = None,
    *,
    source: object = "the CQM",
    max_n: int | None = None,
) -> CardinalityQUBO | BudgetQUBO:
    """Build a problem from a model whose constraints are cardinalities, or a budget and counts.

    Variables are BINARY, or INTEGER between 0 and 1, and are ordered by
    :func:`variable_order`. A bound that fixes one is refused, since a problem holds no
    bounds. A model without constraints takes ``k`` and ``groups`` from the caller.

    Raises
    ------
    FormatError
        If a variable or a constraint is of another kind.
    """
    labels = variable_order(cqm.variables)
    index = {label: i for i, label in enumerate(labels)}
    for label in labels:
        bounds = cqm.lower_bound(label), cqm.upper_bound(label)
        check_variable(label, cqm.vartype(label).name, *bounds, source)
    objective = cqm.objective
    triples = [(index[u], index[v], bias) for u, v, bias in objective.iter_quadratic()]
    rows, cols, values = zip(*triples, strict=True) if triples else ((), (), ())
    terms = Terms(
        np.array(rows, dtype=np.int64),
        np.array(cols, dtype=np.int64),
        np.array(values, dtype=np.float64),
        np.array([objective.get_linear(label) for label in labels], dtype=np.float64),
        float(objective.offset),
    )
    linear = [_row(name, comparison, index, source) for name, comparison in cqm.constraints.items()]
    return problem_from_rows(
        terms, linear, k, groups, source=source, max_n=max_n, labels=valid_labels(labels)
    )


def check_variable(label: Hashable, kind: str, low: float, high: float, source: object) -> None:
    """Refuse a variable of a CQM that is not BINARY, or INTEGER, between 0 and 1."""
    if kind not in ("BINARY", "INTEGER") or (low, high) != (0, 1):
        raise FormatError(
            f"{source}: variable {label!r:.40} is {kind} in [{low:g}, {high:g}]; all must be "
            "binary and not fixed (remove fixed variables with CQM.fix_variables)"
        )


def model_problem(
    terms: Terms,
    labels: Sequence[Hashable] | None,
    kind: Any,
    k: Any,
    groups: Any,
    *,
    source: object,
    max_n: int | None = None,
) -> CardinalityQUBO:
    """Build a problem from a BQM's polynomial, with variables ordered by :func:`variable_order`.

    Parameters
    ----------
    terms : Terms
        In binaries or spins, without products of a variable with itself.
    labels : sequence of hashables, or None
        Names of the variables; 0 … n - 1 if None.
    kind : str
        The model's vartype: BINARY or SPIN.
    k, groups, source, max_n
        As for :meth:`Terms.problem`.

    Raises
    ------
    FormatError
        As :meth:`Terms.problem`, or if the vartype or the labels are not valid.
    """
    n = len(terms.linear)
    check_size(n, len(terms.rows), source, max_n)
    if kind not in ("BINARY", "SPIN"):
        raise FormatError(
            f"{source} has variables of type {kind!r:.40}; only BINARY and SPIN are supported"
        )
    try:
        own = checked_labels(labels, n)
    except InvalidProblemError as error:
        raise FormatError(f"{source} has invalid labels: {error}") from error
    if own is not None:
        ordered = variable_order(own)
        number = {label: i for i, label in enumerate(ordered)}
        place = np.array([number[label] for label in own], dtype=np.int64)
        linear = np.empty(n)
        linear[place] = terms.linear
        rows, cols, own = place[terms.rows], place[terms.cols], tuple(ordered)
        terms = Terms(rows, cols, terms.values, linear, terms.offset)
    if kind == "SPIN":
        terms = Terms.of_spins(terms.rows, terms.cols, terms.values, terms.linear, terms.offset)
    k, groups = choose_cardinality([], n, k, groups, source)
    return terms.problem(k, groups, source=source, max_n=max_n, labels=own)


def variable_order(variables: Iterable[Hashable]) -> list[Hashable]:
    """Sort labels by number if they are numbered; this is the order of a problem's variables.

    Integers are sorted, and so are strings with a common stem and a number (``x0 … x10``); others
    keep their order.
    """
    labels = list(variables)
    if all(isinstance(label, int | np.integer) for label in labels):
        return sorted(labels)  # type: ignore[type-var]
    if all(isinstance(label, str) for label in labels):
        return [labels[i] for i in natural_order(labels)]  # type: ignore[arg-type]
    return labels


def valid_labels(labels: Sequence[Hashable]) -> Sequence[Hashable] | None:
    """Return labels as a problem stores them; None if one has an unsupported type."""
    try:
        return checked_labels(labels, len(labels))
    except InvalidProblemError:
        return None


def _names(
    problem: CardinalityQUBO | BudgetQUBO, labels: Sequence[Hashable] | None
) -> list[Hashable]:
    if labels is None:
        labels = problem.labels
    return list(range(problem.n)) if labels is None else list(labels)


def _row(name: Hashable, comparison: Any, index: dict[Hashable, int], source: object) -> Row:
    left = comparison.lhs
    if not left.is_linear() or left.is_soft():
        raise not_a_count(f"{source}: constraint", name)
    pairs = list(left.iter_linear())
    variables, coefficients = [index[v] for v, _ in pairs], [float(c) for _, c in pairs]
    right, sense = float(comparison.rhs) - float(left.offset), SENSES[comparison.sense.value]
    return Row(variables, coefficients, right, sense, str(name))
