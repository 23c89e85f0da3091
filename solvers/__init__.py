"""Solvers behind one interface, one file per backend."""

from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.errors import (
    BackendError,
    MissingBackendError,
    OptionError,
    SolverError,
    TimeLimitError,
    UnknownSolverError,
    UnsupportedError,
)
from solvers.registry import available, create, get, names
from solvers.solution import Solution, Status, Stop, Timing
from solvers.solve import solve, solve_each

__all__ = [
    "BackendError",
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
    "TimeLimitError",
    "Timing",
    "UnknownSolverError",
    "UnsupportedError",
    "available",
    "create",
    "get",
    "names",
    "solve",
    "solve_each",
]
