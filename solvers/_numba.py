"""Compilation and caching of numba kernels."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import event

from problems import CardinalityQUBO

Array = npt.NDArray[Any]
log = logging.getLogger("icbs")
_kernels: set[Callable[..., Any]] = set()


@cache
def _digest(folder: Path) -> str:
    sources = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def jit(function: Callable[..., Any], fastmath: bool | set[str] = False) -> Callable[..., Any]:
    """Compile a kernel in nopython mode, without the GIL, cached on disk.

    Numba reuses a cached kernel as long as the kernel's own file is unchanged, even if a function
    that it calls has changed in another file. So the cache is stamped with a digest of all
    sources in the kernel's folder instead.
    """
    kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=fastmath)(function)
    _kernels.add(function)
    with suppress(AttributeError):  # private to Numba; without it, Numba's own stamp is used
        stamp = _digest(Path(function.__code__.co_filename).parent)
        kernel._cache._cache_file._source_stamp = stamp  # type: ignore[attr-defined]
    return kernel


class _Notice(event.Listener):
    """Report the first compilation of a process, since it takes long."""

    given = False

    def on_start(self, event: Any) -> None:
        if not self.given and event.data["dispatcher"].py_func in _kernels:
            self.given = True
            log.warning("compiling kernels, once for this installation: up to half a minute")

    def on_end(self, event: Any) -> None:
        """Do nothing at the end."""


event.register("numba:compile", _Notice())


def specimens() -> list[CardinalityQUBO]:
    """Return a small problem of each form, like those of pruning, to compile kernels with."""
    A = np.random.default_rng(0).normal(size=(8, 48)).astype(np.float32)
    linear = -np.square(A).sum(axis=0)
    dense = CardinalityQUBO(A.T @ A + np.diag(linear), 24)
    return [CardinalityQUBO.from_factors(A, linear, 24), dense]
