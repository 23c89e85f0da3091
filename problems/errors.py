"""The root of the project's error tree, and the errors of the problem floor.

Every error that the project raises on purpose derives from :class:`IcbsError`, so that a
caller can catch the lot with one clause; each also derives from the built-in that it
refines, so that plain ``except ValueError`` keeps working.
"""

from __future__ import annotations


class IcbsError(Exception):
    """Anything the project refuses on purpose; the message says what to change."""


class InvalidProblemError(IcbsError, ValueError):
    """Coefficients, cardinalities or states that do not describe a problem."""


class FormatError(IcbsError, ValueError):
    """A file or foreign object that can't be read as a cardinality-constrained QUBO."""


class UnknownProblemError(IcbsError, LookupError):
    """A name that no problem of the library has."""
