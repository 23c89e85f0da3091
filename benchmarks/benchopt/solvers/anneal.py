"""The solver ``anneal`` of the project."""

from benchmark_utils.registered import RegisteredSolver


class Solver(RegisteredSolver):
    """Run ``anneal``; see ``icbs solvers anneal``."""

    name = registered = "anneal"
