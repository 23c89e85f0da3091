"""SCIP for cardinality-constrained QUBOs."""

from solvers.scip.solver import Scip

__all__ = ["Scip"]
