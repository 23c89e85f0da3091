"""Readers of untrusted ``.npz`` files: no pickle, sizes checked before allocation."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from problems.errors import FormatError
from problems.files import regular

#: Any file may unpack to this many bytes; larger contents are limited by a ratio.
FREE_BYTES = 1 << 28
#: Largest ratio of unpacked to packed bytes. Coefficients compress by a factor of 10 at best,
#: unless they are constant.
MAX_RATIO = 50


def read_arrays(
    path: str | Path,
    entries: Mapping[str, tuple[str, int]],
    only: Container[str] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an ``.npz`` after checking the sizes that its headers claim.

    Parameters
    ----------
    path : str or Path
    entries : mapping of name to (kinds, ndim)
        Permitted arrays, with the dtype kinds (``"iu"``, ``"f"``, …) and the number
        of dimensions that they must have.
    only : container of str, optional
        Arrays to read; all if omitted. The headers of the others are checked too.

    Raises
    ------
    FormatError
        If the file is damaged, holds anything else, or unpacks to far more than its size.
    FileNotFoundError
        If there is no such file.
    """
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            return _read(archive, path, entries, only)
    except (FileNotFoundError, FormatError):
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: a password, or an unsupported compression.
        raise FormatError(f"{path} is not a readable .npz file: {error!s:.200}") from error


def check_unpacked(archive: zipfile.ZipFile, path: str | Path, loader: str) -> None:
    """Refuse an archive that unpacks to far more than its size.

    Raises
    ------
    FormatError
        The message names ``loader``, which reads such a file without this check.
    """
    allowed = max(FREE_BYTES, MAX_RATIO * os.path.getsize(path))
    if (total := sum(member.file_size for member in archive.infolist())) > allowed:
        raise FormatError(
            f"{path} would unpack to {total / 2**20:.0f} MiB, more than the "
            f"{allowed / 2**20:.0f} MiB that a file of its size may; if you trust it, load it "
            f"with {loader} and build the CardinalityQUBO yourself"
        )


def _read(
    archive: zipfile.ZipFile,
    path: str | Path,
    entries: Mapping[str, tuple[str, int]],
    only: Container[str] | None,
) -> dict[str, npt.NDArray[Any]]:
    members = archive.infolist()
    check_unpacked(archive, path, "numpy.load")
    arrays: dict[str, npt.NDArray[Any]] = {}
    seen: set[str] = set()
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name not in entries or name in seen:
            problem = "duplicate" if name in seen else "unknown"
            raise FormatError(f"{path} has the {problem} entry {member.filename!r:.80}")
        with archive.open(member) as file:
            _check_header(file, name, entries[name], member.file_size, path)
        seen.add(name)
        if only is not None and name not in only:
            continue
        with archive.open(member) as file:
            arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _check_header(
    file: IO[bytes], name: str, expected: tuple[str, int], size: int, path: str | Path
) -> None:
    """Refuse an array whose header does not fit its name or the bytes that follow."""
    try:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
        shape, _, dtype = getattr(np.lib.format, reader)(file)
    except Exception as error:  # NumPy passes on any error of Python's parser
        raise FormatError(f"{path}: entry {name!r} is not a .npy array: {error!s:.200}") from error
    kinds, ndim = expected
    claimed = math.prod(shape) * dtype.itemsize
    if dtype.kind not in kinds or len(shape) != ndim or min(shape, default=0) < 0:
        raise FormatError(
            f"{path}: entry {name!r} has dtype {dtype} and shape {shape}; expected {ndim} "
            f"dimensions of a dtype of kind {' or '.join(kinds)}"
        )
    if file.tell() + claimed != size:
        raise FormatError(
            f"{path}: entry {name!r} claims the shape {shape}, which does not match its "
            f"{size} bytes; the file is damaged"
        )
