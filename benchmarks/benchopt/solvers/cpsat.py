"""The solver ``cpsat`` of the project."""

from benchmark_utils.registered import RegisteredSolver


class Solver(RegisteredSolver):
    """Run ``cpsat``; see ``icbs solvers cpsat``."""

    name = registered = "cpsat"
