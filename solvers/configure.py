"""Creation of solvers with options."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from problems.suggest import did_you_mean
from solvers.base import Capabilities, Solver
from solvers.errors import OptionError, SolverError, describe


def check_attributes(title: str, solver: object, listed: bool = False) -> None:
    """Check that a solver, or a class of solvers, has the required attributes.

    Registered solvers also need a summary.

    Raises
    ------
    SolverError
        Naming the missing attribute.
    """
    needed: dict[str, type] = {"name": str, "capabilities": Capabilities}
    if listed:
        needed["summary"] = str
    for what, kind in needed.items():
        if not isinstance(getattr(solver, what, None), kind):
            raise SolverError(
                f"solver {title} has no {what}; it must be a class attribute of type "
                f"{kind.__name__}"
            )


def check_options(name: str, solver: Solver | type[Solver], options: Iterable[str]) -> None:
    """Refuse options that a solver does not have.

    Raises
    ------
    OptionError
        With the most similar option, and a list of all.
    """
    known = solver.options()
    if unknown := sorted(set(options) - set(known)):
        raise OptionError(
            f"solver {name!r} has no option {unknown[0]!r}{did_you_mean(unknown[0], known)}; "
            f"its options are: {', '.join(known) or 'none'}"
        )


def configured(name: str, build: Callable[..., Solver], options: dict[str, Any]) -> Solver:
    """Call ``build`` with the options.

    Raises
    ------
    OptionError
        If it raises any error.
    """
    try:
        return build(**options)
    except (KeyboardInterrupt, SolverError):
        raise
    except BaseException as error:
        raise OptionError(
            f"solver {name!r} can't take the options {reprlib.repr(options)}: {describe(error)}"
        ) from error


def reconfigured(name: str, solver: Solver, options: dict[str, Any]) -> Solver:
    """Return a solver with some options changed.

    Raises
    ------
    OptionError
        If the option is unknown, or its value is invalid.
    """
    if not options:
        return solver
    check_options(name, solver, options)
    return configured(name, partial(dataclasses.replace, solver), options)
