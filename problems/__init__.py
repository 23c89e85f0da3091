"""What is solved: cardinality-constrained QUBOs, their energies, files and conversions.

This floor knows no solver and no neural network; it stands on NumPy and torch tensors.
"""

from problems.errors import FormatError, IcbsError, InvalidProblemError
from problems.qubo import CardinalityQUBO

__all__ = ["CardinalityQUBO", "FormatError", "IcbsError", "InvalidProblemError"]
