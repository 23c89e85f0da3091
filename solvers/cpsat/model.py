"""CP-SAT models with integer objectives, and bounds on their rounding errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

#: Largest sum of the absolute integer coefficients: CP-SAT's objectives are 64-bit integers,
#: reported as doubles.
RANGE = 2.0**52


@dataclass(frozen=True)
class CpSatModel:
    """A CP-SAT model whose objective is the rounded energy of a problem."""

    model: Any
    """``cp_model.CpModel``."""
    x: list[Any]
    """The model's variables for those of the problem, in order."""
    scale: float
    """Units of the integer objective per unit of energy."""
    constant: float
    rounding: float
    """Largest increase of the energy of a feasible state by rounded coefficients."""
    lowering: float
    """Largest decrease of the energy by rounded coefficients; a valid bound may be that far below
    the energy."""
    complete: Callable[[Array], list[tuple[Any, int]]]
    """Returns the values of all variables for a state."""

    def lower(self, objective: float) -> float:
        """Convert a bound on the integer objective to one on the energy."""
        return objective / self.scale + self.constant - self.rounding


def add_cardinalities(model: Any, x: list[Any], problem: CardinalityQUBO) -> None:
    """Add ``Σ_{i∈g} x_i = k_g``."""
    for members, wanted in zip(problem.group_members, problem.cardinalities, strict=True):
        if len(members):
            model.add(sum(x[i] for i in members) == int(wanted))


def integers(values: Array, scale: float) -> npt.NDArray[np.int64]:
    """Round ``scale · values``."""
    return np.rint(values * scale).astype(np.int64)


def largest(R: Matrix, k: int) -> float:
    """Bound ``xᵀRx`` from above over all states with ``k`` ≥ 1 ones.

    Each variable contributes at most its own entry and the ``k - 1`` largest others of its row;
    the state at most the ``k`` largest contributions.
    """
    n = len(R)
    gain = R.diagonal().copy()
    if k > 1:
        others = R[~np.eye(n, dtype=bool)].reshape(n, n - 1)
        gain += np.partition(others, n - k, axis=1)[:, n - k :].sum(axis=1)
    return float(np.sort(gain)[n - k :].sum())
