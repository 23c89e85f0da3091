"""OR-Tools CP-SAT for cardinality-constrained QUBOs."""

from solvers.cpsat.solver import CpSat

__all__ = ["CpSat"]
