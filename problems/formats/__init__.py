"""Readers and writers, one file format a module; each converts conventions at its door.

=========== ==================== ================================================
format      endings              module
=========== ==================== ================================================
``npz``     ``.npz``             :mod:`problems.npz` (our own, lossless)
``ubqp``    ``.ubqp``, ``.txt``  :mod:`problems.formats.coo`
``mqlib``   ``.mqlib``           :mod:`problems.formats.coo`
``qubo``    ``.qubo``            :mod:`problems.formats.coo`
``coo``     ``.coo``             :mod:`problems.formats.coo`
``lp``      ``.lp``              :mod:`problems.formats.lp`
``mps``     ``.mps``, ``.qps``   :mod:`problems.formats.mps`
``qplib``   ``.qplib``           :mod:`problems.formats.qplib`
=========== ==================== ================================================

A reader refuses what it does not understand, and what it understands but a problem can't hold:
other sections, other variables, bounds, inequalities. Nothing that changes a problem is left out.

Models in memory are converted by :mod:`problems.formats.bqm` (dimod) and
:mod:`problems.formats.quadratic_program` (qiskit-optimization).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from problems.errors import FormatError
from problems.formats import coo, lp, mps, qplib
from problems.qubo import CardinalityQUBO
from problems.suggest import did_you_mean

__all__ = ["FORMATS", "Format", "read", "write"]


@dataclass(frozen=True)
class Format:
    """One way to store a problem."""

    endings: tuple[str, ...]
    """File name endings that choose it."""
    read: Callable[..., CardinalityQUBO]
    write: Callable[..., None]
    lossless: bool = False
    """Keeps dtype, factors and cardinality, so that a reader is told nothing more."""


def _text(dialect: str, *endings: str) -> Format:
    return Format(endings, partial(coo.read, dialect=dialect), partial(coo.write, dialect=dialect))


FORMATS: dict[str, Format] = {
    "npz": Format((".npz",), CardinalityQUBO.load, CardinalityQUBO.save, lossless=True),
    "ubqp": _text("ubqp", ".ubqp", ".txt"),
    "mqlib": _text("mqlib", ".mqlib"),
    "qubo": _text("qubo", ".qubo"),
    "coo": _text("coo", ".coo"),
    "lp": Format((".lp",), lp.read, lp.write),
    "mps": Format((".mps", ".qps"), mps.read, mps.write),
    "qplib": Format((".qplib",), qplib.read, qplib.write),
}


def read(
    path: str | Path,
    format: str | None = None,
    *,
    k: Any = None,
    groups: Any = None,
    max_n: int | None = None,
) -> CardinalityQUBO:
    """Read a problem.

    Parameters
    ----------
    path : str or Path
    format : str, optional
        A key of :data:`FORMATS`; chosen by the file's ending when omitted.
    k, groups
        The cardinality, for files that hold none, as for :class:`CardinalityQUBO`.
    max_n : int, optional
        Accept up to this many variables from a file that is small for them; see
        :func:`problems.formats.terms.check_size`.

    Raises
    ------
    FormatError
        If the format is unknown, the file is damaged or hostile, a pipe, a device or a folder,
        or it holds another kind of problem, or a cardinality is missing or given twice.
    FileNotFoundError
        If there is no such file.
    """
    chosen = FORMATS[_name(path, format)]
    if not chosen.lossless:
        return chosen.read(path, k=k, groups=groups, max_n=max_n)
    if k is not None or groups is not None:
        raise FormatError(f"{path} holds its own cardinality; leave k and groups out")
    return chosen.read(path)


def write(problem: CardinalityQUBO, path: str | Path, format: str | None = None) -> None:
    """Write a problem, whole or not at all.

    Parameters
    ----------
    problem : CardinalityQUBO
    path : str or Path
    format : str, optional
        A key of :data:`FORMATS`; chosen by the file's ending when omitted.

    Raises
    ------
    FormatError
        If the format is unknown.
    OSError
        If the file can't be written.
    """
    FORMATS[_name(path, format)].write(problem, path)


def _name(path: str | Path, format: str | None) -> str:
    if format is not None:
        if format not in FORMATS:
            raise FormatError(
                f"unknown format {format!r}{did_you_mean(format, FORMATS)}; known formats: "
                f"{', '.join(FORMATS)}"
            )
        return format
    ending = Path(path).suffix.lower()
    for name, candidate in FORMATS.items():
        if ending in candidate.endings:
            return name
    raise FormatError(
        f"{path}: the ending {ending!r} tells no format; name one of {', '.join(FORMATS)}"
    )
