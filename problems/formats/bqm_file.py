"""dimod's binary file of a BQM, ``BinaryQuadraticModel.to_file``, versions 1 and 2.

After the header: the offset; a record (start of its neighbours, linear bias) for each variable;
a record (other variable, whole coefficient) for each neighbour of each variable, so that every
product is there twice; and the labels, as JSON, unless they are 0 … n - 1 (version 1 has them
in the header). A file of spins is read with ``s = 2x - 1``.

It is read without dimod, whose own reader takes indices as they come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from problems.errors import FormatError
from problems.files import regular, write_bytes
from problems.formats.binary import ByteReader, floats, integers, shape
from problems.formats.bqm import model_problem, to_bqm
from problems.formats.terms import Indices, Terms, Vector
from problems.labels import from_json, nested_tuples
from problems.qubo import CardinalityQUBO

_MAGIC = b"DIMODBQM"


def write(problem: CardinalityQUBO, path: str | Path, *, free: bool = False) -> None:
    """Write the energy as a BINARY model of version 2, which ``from_file`` reads.

    Parameters
    ----------
    free : bool
        Makes no difference: the file has no place for a cardinality.
    """
    with to_bqm(problem).to_file() as file:
        write_bytes(path, file.read())


def read(
    path: str | Path, *, k: Any = None, groups: Any = None, max_n: int | None = None
) -> CardinalityQUBO:
    """Read a BQM file.

    Parameters
    ----------
    k, groups
        The cardinality, which the file does not hold.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the file is damaged, or no such file.
    FileNotFoundError
        If there is no such file.
    """
    content = ByteReader(regular(path).read_bytes(), path)
    header, version = content.header(_MAGIC)
    if not (1, 0) <= version < (3, 0):
        raise FormatError(f"{path} is of version {version[0]}.{version[1]}; 1 and 2 are read")
    n, products = shape(header, path)
    bias, start = floats(header, path), integers(header, "ntype", path)
    offset = float(content.array(bias, 1)[0])
    linear = content.array([("start", start), ("bias", bias)], n)
    other = [("other", integers(header, "itype", path)), ("bias", bias)]
    neighbours = content.array(other, 2 * products)
    rows, cols, values = _products(linear["start"], neighbours, path)
    try:
        labels = _labels(header.get("variables"), version, content)
    except ValueError as error:
        raise FormatError(f"{path} has labels that can't be read: {error}") from error
    terms = Terms(rows, cols, values, linear["bias"].astype(np.float64), offset)
    kind = header.get("vartype")
    return model_problem(terms, labels, kind, k, groups, source=path, max_n=max_n)


def _products(starts: Any, neighbours: Any, path: str | Path) -> tuple[Indices, Indices, Vector]:
    """Take each product once, after it has been found twice."""
    n, total = len(starts), len(neighbours)
    ends = np.append(starts[1:].astype(np.int64), total) if n else starts.astype(np.int64)
    degrees = ends - starts.astype(np.int64)
    if (n and (starts[0] != 0 or (degrees < 0).any())) or degrees.sum() != total:
        raise FormatError(f"{path} is damaged: its lists of neighbours overlap or leave gaps")
    rows = np.repeat(np.arange(n), degrees)
    cols = neighbours["other"].astype(np.int64)
    values = neighbours["bias"].astype(np.float64)
    if total and (cols.min() < 0 or cols.max() >= n or (rows == cols).any()):
        raise FormatError(f"{path} is damaged: a variable has itself, or none, as a neighbour")
    low = rows < cols
    first, second = rows[low], cols[low]
    at, mirror = np.lexsort((second, first)), np.lexsort((rows[~low], cols[~low]))
    pairs = np.stack([first, second])[:, at]
    same = np.array_equal(pairs, np.stack([cols[~low], rows[~low]])[:, mirror])
    if not same or not np.array_equal(values[low][at], values[~low][mirror], equal_nan=True):
        raise FormatError(f"{path} is damaged: two variables differ about their product")
    if (np.diff(pairs) == 0).all(axis=0).any():
        raise FormatError(f"{path} is damaged: a product comes twice")
    return pairs[0], pairs[1], values[low][at]


def _labels(told: Any, version: tuple[int, int], content: ByteReader) -> list[Any] | None:
    if version < (2, 0):
        if not isinstance(told, list):
            raise ValueError("they are no list")
        return nested_tuples(told)
    return from_json(content.section(b"VARS").rest()) if told else None
