"""Solvers by name: the entry-point group ``icbs.solvers``, ours and everyone else's."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from solvers.base import Solver
from solvers.errors import OptionError, SolverError, UnknownSolverError

GROUP = "icbs.solvers"


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """Names of all registered solvers, whether or not their backend is installed."""
    return sorted(_entries())


def available() -> list[str]:
    """Names of the registered solvers that can run: importable, with their backend installed."""
    return [name for name in names() if _runs(name)]


def _runs(name: str) -> bool:
    try:
        return not get(name).missing()
    except SolverError:  # someone's broken plug-in must not hide the others; get() explains it
        return False


@cache
def get(name: str) -> type[Solver]:
    """Return the solver class registered under a name.

    Raises
    ------
    UnknownSolverError
        If there is none; the message lists the known names.
    SolverError
        If the plug-in can't be imported or is no solver.
    """
    try:
        entry = _entries()[name]
    except KeyError:
        raise UnknownSolverError(
            f"unknown solver {name!r}; known solvers: {', '.join(names())}"
        ) from None
    try:
        solver = entry.load()
    except Exception as error:
        raise SolverError(
            f"solver {name!r} ({entry.value}) can't be imported: {error}; "
            "reinstall or remove the distribution that provides it"
        ) from error
    if not (isinstance(solver, type) and issubclass(solver, Solver)):
        raise SolverError(f"entry point {name!r} ({entry.value}) is not a solvers.Solver class")
    return solver


def create(name: str, **options: Any) -> Solver:
    """Return a solver with the options given.

    Raises
    ------
    UnknownSolverError, MissingBackendError
        If there is no such solver, or its backend is not installed.
    OptionError
        If it has no such option; the message lists those that it has.
    """
    solver = get(name)
    known = solver.options()
    if unknown := sorted(set(options) - set(known)):
        raise OptionError(
            f"solver {name!r} has no option {unknown[0]!r}; "
            f"its options are: {', '.join(known) or 'none'}"
        )
    solver.require()
    return solver(**options)
