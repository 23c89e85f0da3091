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
``bqm``     ``.bqm``             :mod:`problems.formats.bqm_file`
``cqm``     ``.cqm``             :mod:`problems.formats.cqm_file`
``json``    ``.json``            :mod:`problems.formats.bqm_json`
``ommx``    ``.ommx``            :mod:`problems.formats.ommx`
=========== ==================== ================================================

A reader refuses what it does not understand, and what it understands but a problem can't hold:
other sections, other variables, bounds, inequalities. Nothing that changes a problem is left out.

Models in memory are converted by :mod:`problems.formats.bqm` (dimod),
:mod:`problems.formats.quadratic_program` (qiskit-optimization) and :mod:`problems.formats.ommx`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from problems.errors import FormatError
from problems.formats import bqm_file, bqm_json, coo, cqm_file, lp, mps, ommx, qplib
from problems.free import free as free_problem
from problems.free import original_problem
from problems.qubo import CardinalityQUBO
from problems.suggest import did_you_mean

__all__ = ["FORMATS", "Format", "format_name", "read", "write"]


@dataclass(frozen=True)
class Format:
    """One way to store a problem."""

    endings: tuple[str, ...]
    """File name endings that choose it."""
    read: Callable[..., CardinalityQUBO]
    write: Callable[..., None]
    lossless: bool = False
    """Keeps dtype, factors and cardinality, so that a reader is told nothing more."""
    cardinality: bool = True
    """Has a place for a cardinality; a reader must be told it otherwise."""


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
    "bqm": Format((".bqm",), bqm_file.read, bqm_file.write, cardinality=False),
    "cqm": Format((".cqm",), cqm_file.read, cqm_file.write),
    "json": Format((".json",), bqm_json.read, bqm_json.write, cardinality=False),
    "ommx": Format((".ommx",), ommx.read, ommx.write),
}


def read(
    path: str | Path,
    format: str | None = None,
    *,
    k: Any = None,
    groups: Any = None,
    max_n: int | None = None,
    free: bool = False,
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
    free : bool, default False
        Read a QUBO that has no cardinality at all: the problem returned has 2n variables, the
        first n of which are the file's, and each may be 0 or 1; see :func:`problems.free.free`.

    Raises
    ------
    FormatError
        If the format is unknown, the file is damaged or hostile, a pipe, a device or a folder,
        or it holds another kind of problem, or a cardinality is missing or given twice.
    FileNotFoundError
        If there is no such file.
    """
    chosen = FORMATS[format_name(path, format)]
    given = k is not None or groups is not None
    if free and given:
        raise FormatError("a free problem has no cardinality; leave out k and groups, or free")
    if not chosen.lossless:
        if free:
            return free_problem(chosen.read(path, k=0, max_n=max_n))
        return chosen.read(path, k=k, groups=groups, max_n=max_n)
    if given or free:
        raise FormatError(f"{path} holds its own cardinality; leave k, groups and free out")
    return chosen.read(path)


def write(
    problem: CardinalityQUBO, path: str | Path, format: str | None = None, *, free: bool = False
) -> None:
    """Write a problem, whole or not at all.

    Parameters
    ----------
    problem : CardinalityQUBO
    path : str or Path
    format : str, optional
        A key of :data:`FORMATS`; chosen by the file's ending when omitted.
    free : bool, default False
        Write the QUBO that :func:`problems.free.free` (or ``read(…, free=True)``) made into the
        problem: n variables, and no cardinality.

    Raises
    ------
    FormatError
        If the format is unknown, or holds no problem without a cardinality.
    InvalidProblemError
        If ``free`` is asked for, and the problem has a cardinality of its own.
    OSError
        If the file can't be written.
    """
    name = format_name(path, format)
    if not free:
        FORMATS[name].write(problem, path)
    elif FORMATS[name].lossless:
        others = ", ".join(key for key, each in FORMATS.items() if not each.lossless)
        raise FormatError(f"{name} holds a cardinality, and a free problem has none; use {others}")
    else:
        FORMATS[name].write(original_problem(problem), path, free=True)


def format_name(path: str | Path, format: str | None = None) -> str:
    """Return the key of :data:`FORMATS` that a file's ending, or ``format``, stands for.

    Raises
    ------
    FormatError
        If there is none.
    """
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
