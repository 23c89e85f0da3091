"""Solvers by import string, ``module:Class``."""

from __future__ import annotations

import importlib
from operator import attrgetter
from typing import Any

from solvers.base import Solver
from solvers.configure import check_attributes, configured, reconfigured
from solvers.errors import UnknownSolverError, describe, wrap_errors


def load_solver(reference: str, **options: Any) -> Solver:
    """Import the object that a string names, call it with the options, and wrap the result.

    This runs the module's code: accept import strings from the user only, never from a file.

    Parameters
    ----------
    reference : str
        ``module:name``, where the name is that of a :class:`solvers.Solver` class, of a
        ``dimod.Sampler`` or qiskit optimiser class, or of a function that returns an instance
        of one.
    **options
        Keyword arguments of the class or function; options to change if it is an instance.

    Raises
    ------
    UnknownSolverError
        If it can't be imported.
    OptionError
        If an option is invalid, or the object is not a solver.
    """
    module, _, name = reference.partition(":")
    try:
        found = attrgetter(name)(importlib.import_module(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also sys.exit() in a script without a main guard
        raise UnknownSolverError(
            f"solver {reference!r} can't be imported: {describe(error)}; a solver of your own is "
            "named 'module:Class'"
        ) from error
    made = configured(reference, found, options) if callable(found) else found
    if not isinstance(made, Solver):
        from solvers.adapters import as_solver

        with wrap_errors(reference, "can't be wrapped"):
            made = as_solver(made)
    with wrap_errors(reference, "could not be loaded"):
        check_attributes(repr(reference), made)
        made.require()
    return made if callable(found) else reconfigured(reference, made, options)
