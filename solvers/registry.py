"""Registry of solvers by name: the entry-point group ``icbs.solvers``."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from problems.suggest import did_you_mean
from problems.warn import warn
from solvers.base import Solver
from solvers.configure import check_attributes, check_options, configured
from solvers.errors import (
    SolverError,
    SolverNameWarning,
    UnknownSolverError,
    describe,
    wrap_errors,
)

GROUP = "icbs.solvers"


#: The distribution whose names take precedence.
_OWN = "icbs-pruning"


@cache
def _offers() -> dict[str, list[EntryPoint]]:
    """Return the entry points of each name; several for one name are a conflict."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    for name, offers in found.items():
        own = [entry for entry in offers if _provider(entry) == _OWN]
        others = [entry for entry in offers if entry not in own]
        if own and others:
            warn(
                f"{_listed(others)} also offers a solver named {name!r}: this project's own is "
                "used; uninstall that distribution, or ask its authors for another name",
                SolverNameWarning,
            )
            found[name] = own
    return found


def _entries() -> dict[str, EntryPoint]:
    return {name: offers[0] for name, offers in _offers().items()}


def _provider(entry: EntryPoint) -> str | None:
    """Return the normalised name of an entry point's distribution."""
    return None if entry.dist is None else re.sub(r"[-_.]+", "-", entry.dist.name).lower()


def _listed(entries: list[EntryPoint]) -> str:
    return " and ".join(
        f"distribution {_provider(entry) or 'unknown'} ({entry.value})" for entry in entries
    )


def names() -> list[str]:
    """Names of all registered solvers, whether or not their backend is installed."""
    return sorted(_entries())


def available() -> list[str]:
    """Names of the registered solvers that can be imported and have their backend installed."""
    return [name for name in names() if _runs(name)]


def _runs(name: str) -> bool:
    try:
        with wrap_errors(name, "can't say what it needs"):
            return not get(name).missing()
    except SolverError:  # a broken plug-in must not hide the others; get() reports it
        return False


@cache
def get(name: str) -> type[Solver]:
    """Return the solver class registered under a name.

    Raises
    ------
    UnknownSolverError
        If the name is unknown; the message lists the known ones.
    SolverError
        If the plug-in can't be imported or is not a solver, or several distributions register the
        name.
    """
    try:
        entry = _entries()[name]
    except KeyError:
        raise UnknownSolverError(
            f"unknown solver {name!r}{did_you_mean(name, names())}; known solvers: "
            f"{', '.join(names())}; a solver of your own is named 'module:Class'"
        ) from None
    offers = _offers().get(name, [])
    if any(other.value != offers[0].value for other in offers):
        raise SolverError(
            f"solver name {name!r} is offered by {_listed(offers)}; uninstall all but one of them"
        )
    try:
        solver = entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also sys.exit() in a script without a main guard
        raise SolverError(
            f"solver {name!r} ({entry.value}) can't be imported: {describe(error)}; "
            "reinstall or remove the distribution that provides it"
        ) from error
    if not (isinstance(solver, type) and issubclass(solver, Solver)):
        raise SolverError(f"entry point {name!r} ({entry.value}) is not a solvers.Solver class")
    check_attributes(f"{name!r} ({entry.value})", solver, listed=True)
    return solver


def create(name: str, **options: Any) -> Solver:
    """Return a solver with the options given.

    Parameters
    ----------
    name : str
        A registered name, or ``module:Class``; see :mod:`solvers.import_string`.
    **options
        The solver's options.

    Raises
    ------
    UnknownSolverError, MissingBackendError
        If the name is unknown, or the backend is not installed.
    OptionError
        If an option is unknown, or its value is invalid; the message lists the options.
    BackendError
        If its own code fails during loading.
    """
    if ":" in name:
        from solvers.import_string import load_solver

        return load_solver(name, **options)
    solver = get(name)
    check_options(name, solver, options)
    with wrap_errors(name, "could not be loaded"):
        solver.require()
    return configured(name, solver, options)
