"""The project's own file: a NumPy ``.npz`` without pickle.

Entries: ``format`` (a version string), ``cardinalities``, ``groups`` (only with several
groups), ``offset``, and either ``Q`` or ``A`` and ``linear``.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from problems.errors import FormatError, InvalidProblemError
from problems.qubo import CardinalityQUBO

FORMAT = "icbs-qubo-1"


def write(problem: CardinalityQUBO, path: str | Path) -> None:
    """Write the problem to ``path``, through a temporary file that is then moved."""
    arrays = {
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
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: str | Path) -> CardinalityQUBO:
    """Read a problem that :func:`write` wrote.

    Raises
    ------
    FormatError
        If the file is damaged, is of another kind, or describes no valid problem.
    FileNotFoundError
        If there is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise FormatError(f"{path} is not a readable .npz problem file: {error}") from error
    if str(arrays.get("format")) != FORMAT:
        raise FormatError(f"{path} is not a problem file: its 'format' entry is not {FORMAT!r}")
    try:
        groups = arrays.get("groups")
        wanted = arrays["cardinalities"]
        k = int(wanted[0]) if groups is None else wanted
        offset = float(arrays["offset"])
        if "Q" in arrays:
            return CardinalityQUBO(arrays["Q"], k, groups=groups, offset=offset)
        factors = arrays["A"], arrays["linear"]
        return CardinalityQUBO.from_factors(*factors, k, groups=groups, offset=offset)
    except (KeyError, IndexError, TypeError, InvalidProblemError) as error:
        raise FormatError(f"{path} describes no valid problem: {error}") from error
