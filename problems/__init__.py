"""What is solved: cardinality-constrained QUBOs, their energies, files and conversions.

This floor knows no solver and no neural network; it stands on NumPy and torch tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from problems.errors import FormatError, IcbsError, InvalidProblemError
    from problems.qubo import CardinalityQUBO

__all__ = ["CardinalityQUBO", "FormatError", "IcbsError", "InvalidProblemError"]

_HOME = {
    "CardinalityQUBO": "problems.qubo",
    "FormatError": "problems.errors",
    "IcbsError": "problems.errors",
    "InvalidProblemError": "problems.errors",
}
__getattr__, __dir__ = attach(globals(), _HOME)
