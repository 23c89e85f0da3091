"""dimod's JSON of a BQM, ``BinaryQuadraticModel.to_serializable``, schema 3 (and 2).

Lists ``linear_biases``, ``quadratic_head``, ``quadratic_tail`` and ``quadratic_biases`` (whole
coefficients), an ``offset``, ``variable_labels``, and ``variable_type``: BINARY, or SPIN, which
is read with ``s = 2x - 1``. Files with ``use_bytes``, which is meant for other containers, are
refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from problems.errors import FormatError
from problems.files import regular, write_text
from problems.formats.bqm import model_problem, to_bqm
from problems.formats.terms import Indices, Terms, Vector
from problems.labels import nested_tuples
from problems.qubo import CardinalityQUBO


def write(problem: CardinalityQUBO, path: str | Path, *, free: bool = False) -> None:
    """Write the energy as a BINARY model that ``from_serializable`` reads.

    Parameters
    ----------
    free : bool
        Has no effect: the format stores no cardinality.
    """
    write_text(path, json.dumps(to_bqm(problem).to_serializable()) + "\n")


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO:
    """Read a BQM in JSON.

    Parameters
    ----------
    k, groups
        The cardinality, which the file does not store.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the file is damaged, or has another content.
    FileNotFoundError
        If there is no such file.
    """
    content = regular(path).read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error!s:.200}") from error
    if not isinstance(found, dict) or "linear_biases" not in found:
        raise FormatError(f"{path} is not a BQM in JSON, as written by bqm.to_serializable()")
    if found.get("use_bytes"):
        raise FormatError(f"{path} has use_bytes, which JSON can't store; write it without")
    linear = _floats(found, "linear_biases", path)
    head, tail = (
        _indices(found, f"quadratic_{end}", len(linear), path) for end in ("head", "tail")
    )
    values = _floats(found, "quadratic_biases", path)
    offset = _floats({"offset": [found.get("offset", 0.0)]}, "offset", path)
    if not len(head) == len(tail) == len(values) or (head == tail).any():
        raise FormatError(f"{path} is damaged: its lists of products are inconsistent")
    labels = found.get("variable_labels")
    if not isinstance(labels, list):
        raise FormatError(f"{path} has no list of labels")
    try:
        names = nested_tuples(labels)
    except ValueError as error:
        raise FormatError(f"{path} has invalid labels: {error}") from error
    terms = Terms(head, tail, values, linear, float(offset[0]))
    kind = found.get("variable_type")
    return model_problem(terms, names, kind, k, groups, source=path, max_n=max_n)


def _list(found: dict[str, Any], name: str, kinds: tuple[type, ...], path: str | Path) -> list[Any]:
    values = found.get(name)
    if not isinstance(values, list) or any(type(value) not in kinds for value in values):
        raise FormatError(f"{path}: {name!r} is not a list of numbers")
    return values


def _floats(found: dict[str, Any], name: str, path: str | Path) -> Vector:
    try:
        return np.array(_list(found, name, (int, float), path), dtype=np.float64)
    except OverflowError as error:
        raise FormatError(f"{path}: {name!r} holds an integer beyond float64") from error


def _indices(found: dict[str, Any], name: str, n: int, path: str | Path) -> Indices:
    values = _list(found, name, (int,), path)
    if any(not 0 <= value < n for value in values):
        raise FormatError(f"{path}: {name!r} holds an index outside 0 … {n - 1}")
    return np.array(values, dtype=np.int64)
