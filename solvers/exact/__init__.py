"""Branch and bound for cardinality-constrained QUBOs whose curvature is nearly convex."""

from solvers.exact.solver import Exact

__all__ = ["Exact"]
