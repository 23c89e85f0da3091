"""OMMX, the exchange format of Jij and others: ``ommx.v1.Instance`` and its ``.ommx`` artifacts.

Convention: an instance is a polynomial over variables with ids, whose products are listed as
(row, column, value) and add up, ``(i, j)`` with ``(j, i)``, each with its whole coefficient;
a constraint is a polynomial that equals zero, so that a cardinality reads ``Σ x_i - k = 0``.

Files are read and written without OMMX's own package; :func:`to_instance` and
:func:`from_instance` need it. OMMX's adapters bring an instance to many solvers:
``examples/ommx_solver.py`` makes a solver of any.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from problems.errors import FormatError
from problems.formats.ommx_archive import read_instance, write_instance
from problems.formats.ommx_schema import (
    BINARY,
    EQUAL_TO_ZERO,
    INTEGER,
    MAXIMIZE,
    MINIMIZE,
    message_class,
)
from problems.formats.terms import BUDGET_REMEDY, Row, Terms, cardinality_rows, choose_cardinality
from problems.qubo import CardinalityQUBO

if TYPE_CHECKING:
    from ommx.v1 import Instance


def to_instance(problem: CardinalityQUBO, *, free: bool = False) -> Instance:
    """Return the problem as an ``ommx.v1.Instance`` with binaries of the ids 0 … n - 1.

    Each group is an equality constraint. A label of the problem is its variable's name, or name
    and subscripts where it is a tuple; without labels the variables are ``x`` with subscripts.

    Parameters
    ----------
    problem : CardinalityQUBO
    free : bool, default False
        Leave the cardinality out.
    """
    return _instance_class().from_bytes(encode(problem, free=free))


def from_instance(
    instance: Instance, k: Any = None, groups: Any = None, *, max_n: int | None = None
) -> CardinalityQUBO:
    """Build a problem from an instance over binaries whose constraints are cardinalities.

    Variables are ordered by their ids; an instance that maximises has its sign turned, and one
    without constraints takes ``k`` and ``groups`` from the caller.

    Raises
    ------
    FormatError
        If a variable is not binary, a constraint is not a cardinality, a polynomial has a higher
        degree, or something else is there that a problem can't hold.
    """
    return decode(instance.to_bytes(), "the instance", k, groups, max_n)


def write(problem: CardinalityQUBO, path: str | Path, *, free: bool = False) -> None:
    """Write the problem as an OMMX artifact.

    Parameters
    ----------
    free : bool, default False
        Leave the cardinality out.
    """
    write_instance(path, encode(problem, free=free))


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO:
    """Read an OMMX artifact, or the bytes of an instance; see :func:`from_instance`.

    Parameters
    ----------
    k, groups
        The cardinality, for a file without constraints.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the file is damaged, or describes another kind of problem.
    FileNotFoundError
        If there is no such file.
    """
    return decode(read_instance(path), str(path), k, groups, max_n)


def encode(problem: CardinalityQUBO, *, free: bool = False) -> bytes:
    """Return the bytes of the problem's instance."""
    instance = message_class("Instance")(sense=MINIMIZE)
    for i, (name, subscripts) in enumerate(_names(problem)):
        variable = instance.decision_variables.add(
            id=i, kind=BINARY, name=name, subscripts=subscripts
        )
        variable.bound.lower, variable.bound.upper = 0.0, 1.0
    terms = Terms.of(problem)
    if len(terms.values):
        quadratic = instance.objective.quadratic
        quadratic.rows.extend(terms.rows.tolist())
        quadratic.columns.extend(terms.cols.tolist())
        quadratic.values.extend(terms.values.tolist())
        linear = quadratic.linear
    else:
        linear = instance.objective.linear
    linear.constant = terms.offset
    for i in map(int, np.flatnonzero(terms.linear)):
        linear.terms.add(id=i, coefficient=float(terms.linear[i]))
    for number, (g, members, wanted) in enumerate(cardinality_rows(problem, free)):
        row = instance.constraints.add(
            id=number, equality=EQUAL_TO_ZERO, name="cardinality", subscripts=[g]
        )
        count = row.function.linear
        count.constant = -float(wanted)
        for i in members:
            count.terms.add(id=i, coefficient=1.0)
    content: bytes = instance.SerializeToString(deterministic=True)
    return content


def decode(
    content: bytes, source: str, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO:
    """Build the problem that the bytes of an instance describe; see :func:`from_instance`.

    Parameters
    ----------
    content : bytes
    source : str
        What is being read, for messages.
    """
    instance = _parsed(content, source)
    variables = sorted(instance.decision_variables, key=lambda variable: variable.id)
    place = {variable.id: i for i, variable in enumerate(variables)}
    if len(place) < len(variables):
        raise FormatError(f"{source} names a variable's id twice")
    for variable in variables:
        _check_variable(variable, source)
    terms = _terms(instance.objective, place, f"{source}: the objective")
    rows = [
        _row(item, place, f"{source}: constraint {item.name or item.id!r:.80}")
        for item in instance.constraints
    ]
    k, groups = choose_cardinality(rows, len(variables), k, groups, source)
    labels = _labels(variables)
    maximize = instance.sense == MAXIMIZE
    return terms.problem(k, groups, source=source, max_n=max_n, maximize=maximize, labels=labels)


def _parsed(content: bytes, source: str) -> Any:
    """Return the message, if all that it holds is understood."""
    from google.protobuf.message import DecodeError

    try:
        instance = message_class("Instance").FromString(content)
    except DecodeError as error:
        raise FormatError(f"{source} is not a readable OMMX instance: {error!s:.200}") from error
    known = instance.ByteSize()
    instance.DiscardUnknownFields()
    if instance.ByteSize() != known or instance.format_version:
        raise FormatError(
            f"{source} is of a later version of ommx.v1 than 0; load it with OMMX's own package "
            "and save it with OMMX 2"
        )
    for field, what in _REFUSED.items():
        if getattr(instance, field):
            raise FormatError(f"{source} has {what}; evaluate or restore them with OMMX first")
    if not instance.HasField("objective") or instance.sense not in (0, MINIMIZE, MAXIMIZE):
        raise FormatError(f"{source} is not an OMMX instance: it has no objective, or no sense")
    return instance


_REFUSED = {
    "removed_constraints": "constraints that were removed",
    "decision_variable_dependency": "variables that depend on others",
}


def _check_variable(variable: Any, source: str) -> None:
    bounds = variable.bound.lower, variable.bound.upper  # OMMX reads none as [0, 0]
    if variable.kind not in (BINARY, INTEGER) or bounds != (0.0, 1.0):
        raise FormatError(
            f"{source}: variable {variable.id} is of kind {variable.kind} in [{bounds[0]:g}, "
            f"{bounds[1]:g}]; all must be binary in [0, 1]"
        )
    if variable.HasField("substituted_value"):
        raise FormatError(f"{source}: variable {variable.id} is fixed; leave it out of the model")


def _terms(function: Any, place: dict[int, int], where: str) -> Terms:
    """Return the polynomial of a function, if its degree is at most 2."""
    kind = function.WhichOneof("function")
    rows: list[int] = []
    cols: list[int] = []
    values: list[float] = []
    linear, constant = np.zeros(len(place)), 0.0
    single: list[tuple[int, float]] = []
    if kind == "constant":
        constant = function.constant
    elif kind == "quadratic":
        quadratic = function.quadratic
        rows, cols, values = list(quadratic.rows), list(quadratic.columns), list(quadratic.values)
        if not len(rows) == len(cols) == len(values):
            raise FormatError(f"{where}: rows, columns and values differ in number")
    elif kind == "polynomial":
        for term in function.polynomial.terms:
            ids = list(term.ids)
            if len(ids) > 2:
                raise FormatError(f"{where} has a term of degree {len(ids)}; at most 2 is read")
            if len(ids) == 2:
                rows.append(ids[0])
                cols.append(ids[1])
                values.append(term.coefficient)
            elif ids:
                single.append((ids[0], term.coefficient))
            else:
                constant += term.coefficient
    elif kind != "linear":
        raise FormatError(f"{where} is {kind or 'missing'}; a polynomial is read")
    if kind in ("linear", "quadratic"):
        part = function.linear if kind == "linear" else function.quadratic.linear
        constant = part.constant
        single = [(term.id, term.coefficient) for term in part.terms]
    try:
        for i, coefficient in single:
            linear[place[i]] += coefficient
        first = np.array([place[i] for i in rows], dtype=np.int64)
        second = np.array([place[i] for i in cols], dtype=np.int64)
    except KeyError as error:
        raise FormatError(f"{where} uses variable {error}, which is not declared") from None
    return Terms(first, second, np.array(values, dtype=np.float64), linear, constant)


def _row(item: Any, place: dict[int, int], where: str) -> Row:
    if item.equality != EQUAL_TO_ZERO:
        raise FormatError(
            f"{where} is an inequality; a cardinality reads Σ x_i - k = 0, and {BUDGET_REMEDY}"
        )
    terms = _terms(item.function, place, where)
    if terms.values.any():
        raise FormatError(f"{where} has products; a cardinality reads Σ x_i - k = 0")
    used = np.flatnonzero(terms.linear)
    return Row(used.tolist(), terms.linear[used].tolist(), -terms.offset)


def _names(problem: CardinalityQUBO) -> list[tuple[str, list[int]]]:
    """Return name and subscripts of each variable: the labels if all can be written so."""
    parts = [_split(label) for label in problem.labels or ()]
    names = [part for part in parts if part is not None]
    if len(names) == problem.n and problem.n:
        return names
    return [("x", [i]) for i in range(problem.n)]


def _split(label: Hashable) -> tuple[str, list[int]] | None:
    """Split ``"name"`` or ``("name", 1, 2)``; None for a label of another kind."""
    head, *rest = label if isinstance(label, tuple) and len(label) > 1 else (label,)
    if not isinstance(head, str) or not all(
        isinstance(part, int) and -(2**63) <= part < 2**63 for part in rest
    ):
        return None
    try:
        head.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return head, rest


def _labels(variables: list[Any]) -> list[Hashable] | None:
    """Return the variables' names, with their subscripts; None for ``x_0 … x_(n-1)``, or none."""
    labels = [
        (variable.name, *variable.subscripts) if variable.subscripts else variable.name
        for variable in variables
    ]
    plain = [("x", i) for i in range(len(labels))]
    named = all(variable.HasField("name") for variable in variables)
    return None if labels == plain or not named or len(set(labels)) < len(labels) else labels


def _instance_class() -> Any:
    try:
        from ommx.v1 import Instance
    except ImportError as error:
        raise ImportError(
            f'OMMX\'s own package is missing ({error}): pip install "icbs-pruning[ommx]"; '
            "problems.formats reads and writes .ommx files without it"
        ) from error
    return Instance
