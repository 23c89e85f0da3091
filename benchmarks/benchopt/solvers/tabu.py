"""The solver ``tabu`` of the project."""

from benchmark_utils.registered import RegisteredSolver


class Solver(RegisteredSolver):
    """Run ``tabu``; see ``icbs solvers tabu``."""

    name = registered = "tabu"
