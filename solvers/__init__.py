"""Solvers behind one interface, one file per backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.errors import (
    BackendError,
    CallbackError,
    CampaignError,
    MissingBackendError,
    OptionError,
    SolverError,
    TableError,
    TargetError,
    TimeLimitError,
    UnknownSolverError,
    UnsupportedError,
)
from solvers.registry import available, create, get, names
from solvers.solution import Solution, Status, Stop, Timing
from solvers.solve import solve, solve_each

if TYPE_CHECKING:
    from solvers.comparison.entry import compare

__all__ = [
    "BackendError",
    "CallbackError",
    "CampaignError",
    "Capabilities",
    "MissingBackendError",
    "OptionError",
    "Outcome",
    "Request",
    "Solution",
    "Solver",
    "SolverError",
    "Status",
    "Stop",
    "TableError",
    "TargetError",
    "TimeLimitError",
    "Timing",
    "UnknownSolverError",
    "UnsupportedError",
    "available",
    "compare",
    "create",
    "get",
    "names",
    "solve",
    "solve_each",
]

# Configurations and tables are imported when somebody compares.
__getattr__, __dir__ = attach(globals(), {"compare": "solvers.comparison.entry"})
