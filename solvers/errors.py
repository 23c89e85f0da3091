"""Errors of solvers; all derive from :class:`problems.IcbsError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from problems.errors import IcbsError

#: Largest length of a vendor's message.
_LONGEST = 2000


class SolverError(IcbsError):
    """Base of all errors of solvers."""


class UnknownSolverError(SolverError, ValueError):
    """No solver of that name is installed; the message lists the installed ones."""


class OptionError(SolverError, ValueError):
    """An unknown option of a solver, or an invalid value."""


class UnsupportedError(SolverError, ValueError):
    """A request that the solver's capabilities don't cover (size, groups, time limit, …)."""


class MissingBackendError(SolverError, ImportError):
    """A package required by a solver is not installed; the message names the pip command."""


class BackendError(SolverError, RuntimeError):
    """The backend failed; the vendor's exception is the ``__cause__``."""


class TimeLimitError(BackendError, TimeoutError):
    """A solver was still running a grace time after its time limit and was abandoned."""


class CallbackError(SolverError, RuntimeError):
    """A callback raised an error, which ended the search; the error is the cause."""


class TableError(SolverError, ValueError):
    """A table of a comparison that can't be read or measured; the message says where."""


class CampaignError(SolverError, ValueError):
    """A comparison that can't be run as it is configured; the message says what to change."""


class TargetError(SolverError, ValueError):
    """Hardware described by an unknown name or an impossible figure; the message says which."""


class SolverNameWarning(UserWarning):
    """Another distribution registers a solver under the name of a built-in one."""


def describe(error: BaseException) -> str:
    """Return an error's type and message, also if its ``__str__`` fails."""
    try:
        text = str(error)
    except Exception:
        text = "(its message can't be read)"
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " …"
    return f"{type(error).__name__}: {text}"


def to_solver_error(solver: str, error: BaseException) -> SolverError:
    """Convert any error raised by a solver to a :class:`SolverError`.

    Errors of this module are returned unchanged. Any other, including ``SystemExit``,
    ``GeneratorExit`` and a plug-in's own subclasses, which another process could not unpickle,
    becomes the cause of a :class:`BackendError`.

    Parameters
    ----------
    solver : str
        The solver's name.
    error : BaseException
    """
    own = isinstance(error, SolverError) and type(error).__module__ == __name__
    if own and len(error.args) == 1 and type(error.args[0]) is str:
        return error  # type: ignore[return-value]
    failure = BackendError(f"solver {solver!r} failed: {describe(error)}")
    failure.__cause__ = error
    return failure


@contextmanager
def wrap_errors(solver: str, doing: str) -> Iterator[None]:
    """Convert errors raised by a plug-in's code to :class:`BackendError`.

    Parameters
    ----------
    solver : str
        The solver's name.
    doing : str
        Description of the failure, such as "could not be loaded".

    Raises
    ------
    SolverError
    """
    try:
        yield
    except (KeyboardInterrupt, SolverError):
        raise
    except BaseException as error:
        raise BackendError(f"solver {solver!r} {doing}: {describe(error)}") from error
