"""Making a solver of its options."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable
from functools import partial
from typing import Any

from problems.suggest import did_you_mean
from solvers.base import Solver
from solvers.errors import OptionError, SolverError, describe


def configured(name: str, build: Callable[..., Solver], options: dict[str, Any]) -> Solver:
    """Return what ``build`` makes of the options.

    Raises
    ------
    OptionError
        If it fails, with whatever error.
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
        If it has no such option, or refuses the value.
    """
    if not options:
        return solver
    known = solver.options()
    if unknown := sorted(set(options) - set(known)):
        raise OptionError(
            f"solver {name!r} has no option {unknown[0]!r}{did_you_mean(unknown[0], known)}; "
            f"its options are: {', '.join(known) or 'none'}"
        )
    return configured(name, partial(dataclasses.replace, solver), options)
