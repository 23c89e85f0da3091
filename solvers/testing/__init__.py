"""Conformance suite for solvers, built-in and third-party.

Run :func:`check_solver` on a solver, or each of :data:`CHECKS` on a :class:`Case` for one test
per requirement. Checks raise AssertionError with an explanation. Requests outside a solver's
capabilities must be refused with :class:`~solvers.errors.UnsupportedError`, and are not tested
otherwise.

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
        At the first violated requirement.
    """
    prepared = Case(solver, **case)
    for check in CHECKS.values():
        check(prepared)
