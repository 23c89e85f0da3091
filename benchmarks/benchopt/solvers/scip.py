"""The solver ``scip`` of the project."""

import pyscipopt  # noqa: F401 - without it benchopt skips the solver
from benchmark_utils.registered import RegisteredSolver


class Solver(RegisteredSolver):
    """Run ``scip``; see ``icbs solvers scip``."""

    name = registered = "scip"
    requirements = ["pip::pyscipopt"]  # noqa: RUF012
