"""Making a solver of its options."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

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
