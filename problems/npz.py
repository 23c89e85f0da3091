"""The native file format: a NumPy ``.npz`` without pickle.

Entries: ``format`` (a version string), ``cardinalities`` (one integer per group), ``groups``
(only with several groups), ``offset``, ``labels`` (only with names; a JSON list), and either
``Q`` (symmetric, both triangles) or ``A`` and ``linear`` for ``Q = AᵀA + diag(linear)``.
Variables count from 0; reading restores every bit, with dtype and form.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from problems.archive import read_arrays
from problems.errors import FormatError
from problems.files import atomic
from problems.labels import from_json

FORMAT = "icbs-qubo-1"

#: Dtype kinds and number of dimensions of each entry.
_ENTRIES = {
    "format": ("U", 0),
    "cardinalities": ("iu", 1),
    "groups": ("iu", 1),
    "offset": ("f", 0),
    "labels": ("U", 0),
    "Q": ("f", 2),
    "A": ("f", 2),
    "linear": ("f", 1),
}


def write(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write entries to ``path`` atomically; ``groups`` and ``labels`` may be None."""
    arrays = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, format=np.array(FORMAT), **arrays)


def read(path: str | Path) -> dict[str, Any]:
    """Read the entries of a file; ``k`` holds the cardinalities as a problem takes them.

    Checks the types and dimensions of the arrays; :meth:`problems.CardinalityQUBO.load` checks
    that they form a valid problem.

    Raises
    ------
    FormatError
        If the file is damaged, has another format, lacks an entry, or unpacks to far more than
        its size.
    FileNotFoundError
        If there is no such file.
    """
    arrays = read_arrays(path, _ENTRIES)
    if str(arrays.get("format")) != FORMAT:
        raise FormatError(f"{path} is not a problem file: its 'format' entry is not {FORMAT!r}")
    try:
        groups, wanted = arrays.get("groups"), arrays["cardinalities"]
        form = ("Q",) if "Q" in arrays else ("A", "linear")
        return {
            "k": int(wanted[0]) if groups is None and len(wanted) == 1 else wanted,
            "groups": groups,
            "offset": float(arrays["offset"]),
            "labels": from_json(str(arrays["labels"])) if "labels" in arrays else None,
            **{name: arrays[name] for name in form},
        }
    except KeyError as error:
        raise FormatError(f"{path} is not a valid problem: the entry {error} is missing") from error
    except ValueError as error:
        raise FormatError(f"{path} has labels that can't be read: {error}") from error
