"""Errors of the solver floor; all derive from :class:`problems.IcbsError`."""

from __future__ import annotations

from problems.errors import IcbsError


class SolverError(IcbsError):
    """Anything that keeps a solver from answering."""


class UnknownSolverError(SolverError, ValueError):
    """No solver of that name is installed; the message lists those that are."""


class OptionError(SolverError, ValueError):
    """An option that the solver does not have, or a value that it can't take."""


class UnsupportedError(SolverError, ValueError):
    """The solver's capabilities don't cover what was asked (size, groups, time limit, …)."""


class MissingBackendError(SolverError, ImportError):
    """The package that a solver stands on is not installed; the message names the pip line."""


class BackendError(SolverError, RuntimeError):
    """The backend failed; the vendor's exception is the ``__cause__``."""
