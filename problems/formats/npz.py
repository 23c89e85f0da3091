"""The project's own file: a NumPy ``.npz`` without pickle.

Entries: ``format`` (a version string), ``cardinalities`` (one integer a group), ``groups``
(only with several groups), ``offset``, and either ``Q`` (symmetric, both triangles) or ``A``
and ``linear`` for ``Q = AᵀA + diag(linear)``. Variables count from 0, and everything comes
back bit for bit, dtype and form included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from problems.errors import FormatError, InvalidProblemError
from problems.files import atomic
from problems.formats.archive import read_arrays
from problems.qubo import CardinalityQUBO

FORMAT = "icbs-qubo-1"

#: Dtype kinds and number of dimensions of each entry.
_ENTRIES = {
    "format": ("U", 0),
    "cardinalities": ("iu", 1),
    "groups": ("iu", 1),
    "offset": ("f", 0),
    "Q": ("f", 2),
    "A": ("f", 2),
    "linear": ("f", 1),
}


def write(problem: CardinalityQUBO, path: str | Path) -> None:
    """Write the problem to ``path``, whole or not at all."""
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "cardinalities": problem.cardinalities,
        "offset": np.array(problem.offset),
    }
    if problem.num_groups > 1:
        arrays["groups"] = problem.groups
    if problem.is_factored:
        arrays |= {"A": problem.A, "linear": problem.linear}
    else:
        arrays["Q"] = problem.Q
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: str | Path) -> CardinalityQUBO:
    """Read a problem that :func:`write` wrote.

    Raises
    ------
    FormatError
        If the file is damaged, is of another kind, unpacks to far more than its size, or
        describes no valid problem.
    FileNotFoundError
        If there is no such file.
    """
    arrays = read_arrays(path, _ENTRIES)
    if str(arrays.get("format")) != FORMAT:
        raise FormatError(f"{path} is not a problem file: its 'format' entry is not {FORMAT!r}")
    try:
        groups = arrays.get("groups")
        wanted = arrays["cardinalities"]
        k = int(wanted[0]) if groups is None and len(wanted) == 1 else wanted
        offset = float(arrays["offset"])
        if "Q" in arrays:
            return CardinalityQUBO(arrays["Q"], k, groups=groups, offset=offset)
        factors = arrays["A"], arrays["linear"]
        return CardinalityQUBO.from_factors(*factors, k, groups=groups, offset=offset)
    except KeyError as error:
        raise FormatError(f"{path} describes no valid problem: it has no entry {error}") from error
    except InvalidProblemError as error:
        raise FormatError(f"{path} describes no valid problem: {error}") from error
