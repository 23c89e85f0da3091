"""What a formulation hands to CP-SAT, and what its integers leave out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

#: The sum of the absolute integer coefficients, at the most: CP-SAT's objectives are 64-bit
#: integers, which it reports as doubles.
RANGE = 2.0**52


@dataclass(frozen=True)
class CpSatModel:
    """A CP-SAT model whose objective is the rounded energy of a problem."""

    model: Any
    """``cp_model.CpModel``."""
    x: list[Any]
    """Its variables for the problem's, in order."""
    scale: float
    """Units of the integer objective per unit of energy."""
    constant: float
    rounding: float
    """How much rounded coefficients may add to the energy of a feasible state."""
    lowering: float
    """How much they may take from it: by that a bound may miss the energy, with nothing wrong."""
    complete: Callable[[Array], list[tuple[Any, int]]]
    """The values of all variables that go with a state."""

    def lower(self, objective: float) -> float:
        """Return the bound on the energy that goes with one on the integer objective."""
        return objective / self.scale + self.constant - self.rounding


def hold_cardinalities(model: Any, x: list[Any], problem: CardinalityQUBO) -> None:
    """Add ``Σ_{i∈g} x_i = k_g``."""
    for members, wanted in zip(problem.group_members, problem.cardinalities, strict=True):
        if len(members):
            model.add(sum(x[i] for i in members) == int(wanted))


def integers(values: Array, scale: float) -> npt.NDArray[np.int64]:
    """Round ``scale · values``."""
    return np.rint(values * scale).astype(np.int64)


def largest(R: Matrix, k: int) -> float:
    """Bound ``xᵀRx`` from above over all states with ``k`` ≥ 1 ones.

    Beside its own entry, each variable takes at most the ``k - 1`` largest of its row; the
    state takes at most the ``k`` variables that get most.
    """
    n = len(R)
    gain = R.diagonal().copy()
    if k > 1:
        others = R[~np.eye(n, dtype=bool)].reshape(n, n - 1)
        gain += np.partition(others, n - k, axis=1)[:, n - k :].sum(axis=1)
    return float(np.sort(gain)[n - k :].sum())
