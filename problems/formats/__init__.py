"""Readers and writers, one module per file format; each converts its conventions to ours.

=========== ==================== ================================================
format      endings              module
=========== ==================== ================================================
``npz``     ``.npz``             :mod:`problems.npz` (native, lossless)
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

A reader refuses sections, variables, bounds and inequalities that it does not understand or that
a problem can't represent; it never ignores input that affects the problem.

Models in memory are converted by :mod:`problems.formats.bqm` (dimod),
:mod:`problems.formats.quadratic_program` (qiskit-optimization) and :mod:`problems.formats.ommx`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from problems.budget import BudgetQUBO
from problems.errors import FormatError
from problems.formats import bqm_file, bqm_json, coo, cqm_file, lp, mps, ommx, qplib
from problems.formats.terms import BUDGET_FORMATS
from problems.free import free as free_problem
from problems.free import original_problem
from problems.loading import load_problem
from problems.qubo import CardinalityQUBO
from problems.suggest import did_you_mean

__all__ = ["FORMATS", "Format", "format_name", "read", "write"]


@dataclass(frozen=True)
class Format:
    """A file format: its extensions, reader and writer."""

    endings: tuple[str, ...]
    """File name extensions of the format."""
    read: Callable[..., Any]
    write: Callable[..., None]
    lossless: bool = False
    """Whether files keep dtype, factors and cardinality, so that reading needs no arguments."""
    cardinality: bool = True
    """Whether files can store a cardinality; otherwise it is passed when reading."""


def _text(dialect: str, *endings: str) -> Format:
    return Format(endings, partial(coo.read, dialect=dialect), partial(coo.write, dialect=dialect))


def _save(problem: CardinalityQUBO | BudgetQUBO, path: str | Path) -> None:
    problem.save(path)


FORMATS: dict[str, Format] = {
    "npz": Format((".npz",), load_problem, _save, lossless=True),
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
) -> CardinalityQUBO | BudgetQUBO:
    """Read a problem: a :class:`BudgetQUBO` from an npz, lp, mps or cqm file that holds one.

    Parameters
    ----------
    path : str or Path
    format : str, optional
        A key of :data:`FORMATS`; inferred from the file extension when omitted.
    k, groups
        The cardinality, for files without one, as for :class:`CardinalityQUBO`.
    max_n : int, optional
        Largest number of variables to accept, however small the file; see
        :func:`problems.formats.terms.check_size`.
    free : bool, default False
        Read a QUBO without a cardinality. The problem returned has 2n variables, of which the
        first n are the file's, and can be 0 or 1 freely; see :func:`problems.free.free`.

    Raises
    ------
    FormatError
        If the format is unknown, the file is damaged, hostile or not a regular file, it holds
        another kind of problem, or a cardinality is missing or given twice.
    FileNotFoundError
        If there is no such file.
    """
    chosen = FORMATS[format_name(path, format)]
    given = k is not None or groups is not None
    if free and given:
        raise FormatError("a free problem has no cardinality; omit k and groups, or free")
    if not chosen.lossless:
        if free:
            return free_problem(chosen.read(path, k=0, max_n=max_n))
        return chosen.read(path, k=k, groups=groups, max_n=max_n)
    if given or free:
        raise FormatError(f"{path} contains a cardinality; omit k, groups and free")
    return chosen.read(path)


def write(
    problem: CardinalityQUBO | BudgetQUBO,
    path: str | Path,
    format: str | None = None,
    *,
    free: bool = False,
) -> None:
    """Write a problem, atomically.

    Parameters
    ----------
    problem : CardinalityQUBO or BudgetQUBO
        A budget can be written as npz, lp, mps and cqm.
    path : str or Path
    format : str, optional
        A key of :data:`FORMATS`; inferred from the file extension when omitted.
    free : bool, default False
        Write the QUBO behind a problem made by :func:`problems.free.free` or
        ``read(…, free=True)``: n variables, no cardinality.

    Raises
    ------
    FormatError
        If the format is unknown, or can't store a problem without a cardinality, or a budget.
    InvalidProblemError
        If ``free`` is set and the problem has a cardinality.
    OSError
        If the file can't be written.
    """
    name = format_name(path, format)
    if isinstance(problem, BudgetQUBO):
        if name not in BUDGET_FORMATS or free:
            raise FormatError(
                f"a problem with a budget can't be written as {name}{' without it' if free else ''}"
                f"; choose one of {', '.join(BUDGET_FORMATS)}"
            )
        FORMATS[name].write(problem, path)
    elif not free:
        FORMATS[name].write(problem, path)
    elif FORMATS[name].lossless:
        others = ", ".join(key for key, each in FORMATS.items() if not each.lossless)
        raise FormatError(
            f"{name} files need a cardinality, and a free problem has none; use {others}"
        )
    else:
        FORMATS[name].write(original_problem(problem), path, free=True)


def format_name(path: str | Path, format: str | None = None) -> str:
    """Return the key of :data:`FORMATS` for ``format``, or for a file's extension.

    Raises
    ------
    FormatError
        If there is none, or the format is unknown.
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
        f"{path}: can't infer the format from the extension {ending!r}; pass one of "
        f"{', '.join(FORMATS)}"
    )
