"""The solver ``exact`` of the project."""

from benchmark_utils.registered import RegisteredSolver


class Solver(RegisteredSolver):
    """Run ``exact``; see ``icbs solvers exact``."""

    name = registered = "exact"
