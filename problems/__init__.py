"""Cardinality-constrained QUBOs: energies, files and conversions.

This package imports neither solvers nor neural networks; it needs NumPy, and torch for tensors.
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
