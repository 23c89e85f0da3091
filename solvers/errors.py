"""Errors of the solver floor; all derive from :class:`problems.IcbsError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from problems.errors import IcbsError

#: Characters of a vendor's message that are passed on.
_LONGEST = 2000


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


class TimeLimitError(BackendError, TimeoutError):
    """The solver was still running a grace time after its time limit; it is waited for no more."""


class TableError(SolverError, ValueError):
    """A table of a comparison that can't be read or measured; the message says where."""


class CampaignError(SolverError, ValueError):
    """A comparison that can't be run as it is configured; the message says what to change."""


class SolverNameWarning(UserWarning):
    """Another distribution offers a solver under the name of one of this project's."""


def describe(error: BaseException) -> str:
    """Return an error's type and message, also of one whose message can't be had."""
    try:
        text = str(error)
    except Exception:
        text = "(its message can't be read)"
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " …"
    return f"{type(error).__name__}: {text}"


def to_solver_error(solver: str, error: BaseException) -> SolverError:
    """Return an error of this tree for whatever a solver raised.

    Errors of this module stay as they are. Any other, also one that is not an ``Exception``
    (``SystemExit``, ``GeneratorExit``) and a plug-in's own subclass of these, which another
    process could not unpickle, becomes the cause of a :class:`BackendError`.

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
    """Raise what a plug-in's own code raises as an error of this tree.

    Parameters
    ----------
    solver : str
        The solver's name.
    doing : str
        What it was asked for, such as "could not be loaded".

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
