"""The project's own file: a NumPy ``.npz`` without pickle.

Entries: ``format`` (a version string), ``cardinalities`` (one integer a group), ``groups``
(only with several groups), ``offset``, and either ``Q`` (symmetric, both triangles) or ``A``
and ``linear`` for ``Q = AᵀA + diag(linear)``. Variables count from 0, and everything comes
back bit for bit, dtype and form included.

A reader trusts nothing: the zip directory and each array's header are checked, and must
agree on the size, before an array is allocated.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from problems.errors import FormatError, InvalidProblemError
from problems.files import atomic
from problems.qubo import CardinalityQUBO

FORMAT = "icbs-qubo-1"

#: Bytes that a file may unpack to whatever its own size; beyond them, a ratio rules.
FREE_BYTES = 1 << 28
#: Coefficients pack by a factor of 10 at best where they are not constant.
MAX_RATIO = 50

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
    """Write the problem to ``path``; whole or not at all."""
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
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive, path)
    except (FileNotFoundError, FormatError):
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: a password, or a compression that this Python can't undo.
        raise FormatError(f"{path} is not a readable .npz problem file: {error!s:.200}") from error
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


def _arrays(archive: zipfile.ZipFile, path: str | Path) -> dict[str, np.ndarray]:
    """Read every entry after its claims have been checked."""
    entries = archive.infolist()
    allowed = max(FREE_BYTES, MAX_RATIO * os.path.getsize(path))
    if (total := sum(entry.file_size for entry in entries)) > allowed:
        raise FormatError(
            f"{path} would unpack to {total / 2**20:.0f} MiB, more than the "
            f"{allowed / 2**20:.0f} MiB that a file of its size may; if you trust it, load it "
            "with numpy.load and build the CardinalityQUBO yourself"
        )
    arrays: dict[str, np.ndarray] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name not in _ENTRIES or name in arrays:
            what = "twice" if name in arrays else "unknown"
            raise FormatError(f"{path} holds the entry {entry.filename!r:.80}, which is {what}")
        with archive.open(entry) as file:
            _check_header(file, name, entry.file_size, path)
        with archive.open(entry) as file:
            arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _check_header(file: IO[bytes], name: str, size: int, path: str | Path) -> None:
    """Refuse an array whose header does not fit its name or the bytes that follow."""
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
        shape, _, dtype = getattr(np.lib.format, header)(file)
    except Exception as error:  # NumPy lets through whatever Python's own parser raises
        raise FormatError(f"{path}: entry {name!r} is no .npy array: {error!s:.200}") from error
    kinds, ndim = _ENTRIES[name]
    claimed = math.prod(shape) * dtype.itemsize
    if dtype.kind not in kinds or len(shape) != ndim or min(shape, default=0) < 0:
        raise FormatError(
            f"{path}: entry {name!r} has dtype {dtype} and shape {shape}; expected {ndim} "
            f"dimensions of a dtype of kind {' or '.join(kinds)}"
        )
    if file.tell() + claimed != size:
        raise FormatError(
            f"{path}: entry {name!r} claims shape {shape}, which is not what its "
            f"{size} bytes hold; the file is damaged"
        )
