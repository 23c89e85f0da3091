"""The solver ``random`` of the project."""

from benchmark_utils.registered import RegisteredSolver


class Solver(RegisteredSolver):
    """Run ``random``; see ``icbs solvers random``."""

    name = registered = "random"
