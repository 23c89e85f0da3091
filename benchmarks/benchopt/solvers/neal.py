"""The solver ``neal`` of the project."""

from benchmark_utils.registered import RegisteredSolver


class Solver(RegisteredSolver):
    """Run ``neal``; see ``icbs solvers neal``."""

    name = registered = "neal"
