"""dimod's binary file of a BQM, ``BinaryQuadraticModel.to_file``, versions 1 and 2.

After the header: the offset; a record (start of its neighbours, linear bias) for each variable; a
record (other variable, whole coefficient) for each neighbour of each variable, so that every
product is listed twice; and the labels, as JSON, unless they are 0 … n - 1 (version 1 has them in
the header). A file of spins is read with ``s = 2x - 1``.

The reader does not use dimod, whose own reader does not check indices.
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
        Has no effect: the format stores no cardinality.
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
        The cardinality, which the file does not store.
    max_n : int, optional
        Largest n to accept; see :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the file is damaged, or has another format.
    FileNotFoundError
        If there is no such file.
    """
    content = ByteReader(regular(path).read_bytes(), path)
    header, version = content.header(_MAGIC)
    if not (1, 0) <= version < (3, 0):
        raise FormatError(f"{path} has version {version[0]}.{version[1]}; supported are 1 and 2")
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
        raise FormatError(f"{path} has invalid labels: {error}") from error
    terms = Terms(rows, cols, values, linear["bias"].astype(np.float64), offset)
    kind = header.get("vartype")
    return model_problem(terms, labels, kind, k, groups, source=path, max_n=max_n)


def _products(starts: Any, neighbours: Any, path: str | Path) -> tuple[Indices, Indices, Vector]:
    """Return each product once, after checking that it is listed twice."""
    n, total = len(starts), len(neighbours)
    ends = np.append(starts[1:].astype(np.int64), total) if n else starts.astype(np.int64)
    degrees = ends - starts.astype(np.int64)
    if (n and (starts[0] != 0 or (degrees < 0).any())) or degrees.sum() != total:
        raise FormatError(f"{path} is damaged: its lists of neighbours overlap or leave gaps")
    rows = np.repeat(np.arange(n), degrees)
    cols = neighbours["other"].astype(np.int64)
    values = neighbours["bias"].astype(np.float64)
    if total and (cols.min() < 0 or cols.max() >= n or (rows == cols).any()):
        raise FormatError(f"{path} is damaged: an invalid index of a neighbour")
    low = rows < cols
    first, second = rows[low], cols[low]
    at, mirror = np.lexsort((second, first)), np.lexsort((rows[~low], cols[~low]))
    pairs = np.stack([first, second])[:, at]
    same = np.array_equal(pairs, np.stack([cols[~low], rows[~low]])[:, mirror])
    if not same or not np.array_equal(values[low][at], values[~low][mirror], equal_nan=True):
        raise FormatError(f"{path} is damaged: the two entries of a product differ")
    if (np.diff(pairs) == 0).all(axis=0).any():
        raise FormatError(f"{path} is damaged: a product is listed twice")
    return pairs[0], pairs[1], values[low][at]


def _labels(listed: Any, version: tuple[int, int], content: ByteReader) -> list[Any] | None:
    if version < (2, 0):
        if not isinstance(listed, list):
            raise ValueError("they are not a list")
        return nested_tuples(listed)
    return from_json(content.section(b"VARS").rest()) if listed else None
