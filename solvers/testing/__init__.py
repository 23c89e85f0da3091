"""The conformance suite: what every solver promises, for ours and everyone else's.

Run :func:`check_solver` on a solver, or each of :data:`CHECKS` on a :class:`Case` for one
test a promise. Checks raise AssertionError with a sentence that says what was broken; what
a solver declares that it can't do must be refused with
:class:`~solvers.errors.UnsupportedError`, and is not asked for otherwise.

>>> from solvers.testing import check_solver
>>> check_solver("exhaustive")
"""

from __future__ import annotations

from typing import Any

from solvers.base import Solver
from solvers.testing.case import Case
from solvers.testing.checks import CHECKS
from solvers.testing.verify import verify

__all__ = ["CHECKS", "Case", "check_solver", "verify"]


def check_solver(solver: str | Solver, **case: Any) -> None:
    """Run the whole suite on one solver.

    Parameters
    ----------
    solver : str or Solver
        A registered name, or an instance with the options to test.
    **case
        Fields of :class:`Case`, such as ``n`` for a slow solver.

    Raises
    ------
    AssertionError
        At the first broken promise.
    """
    prepared = Case(solver, **case)
    for check in CHECKS.values():
        check(prepared)
