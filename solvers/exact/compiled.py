"""How the kernels of this package are compiled and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy.typing as npt

Array = npt.NDArray[Any]


def _digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


_SOURCES = _digest()


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter, holding no lock, cached on disk.

    Numba takes a cached kernel for fresh as long as the kernel's own file is unchanged,
    also when a function that it calls has changed in another file. So the cache is
    stamped with all sources of the package instead.
    """
    kernel = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    with suppress(AttributeError):  # private to Numba; without it, only its own stamp holds
        kernel._cache._cache_file._source_stamp = _SOURCES  # type: ignore[attr-defined]
    return kernel
