"""QUBOs with a cardinality or a budget: energies, files and conversions.

This package imports neither solvers nor neural networks; it needs NumPy, and torch for tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from problems.budget import BudgetQUBO
    from problems.errors import FormatError, IcbsError, InvalidProblemError
    from problems.instance import Instance, load_instances
    from problems.qubo import CardinalityQUBO

__all__ = [
    "BudgetQUBO",
    "CardinalityQUBO",
    "FormatError",
    "IcbsError",
    "Instance",
    "InvalidProblemError",
    "load_instances",
]

_HOME = {
    "BudgetQUBO": "problems.budget",
    "CardinalityQUBO": "problems.qubo",
    "FormatError": "problems.errors",
    "IcbsError": "problems.errors",
    "Instance": "problems.instance",
    "InvalidProblemError": "problems.errors",
    "load_instances": "problems.instance",
}
__getattr__, __dir__ = attach(globals(), _HOME)
