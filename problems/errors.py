"""The base class of all errors, and the errors of this package.

Every error that the project raises deliberately derives from :class:`IcbsError`, so that one
clause catches them all; each also derives from the built-in error that it refines, so that
``except ValueError`` works too.
"""

from __future__ import annotations


class IcbsError(Exception):
    """Base of all deliberate errors; the message says what to change."""


class InvalidProblemError(IcbsError, ValueError):
    """Coefficients, cardinalities or states that do not describe a problem."""


class FormatError(IcbsError, ValueError):
    """A file or model that can't be read as a cardinality-constrained QUBO."""


class UnknownProblemError(IcbsError, LookupError):
    """A name that no problem of the library has."""
