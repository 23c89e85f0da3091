"""Scaling by powers of two, which changes only the exponents of coefficients.

Solvers square, divide and add coefficients, often in float32: far from 1, results overflow or
underflow. A problem is scaled to about 1 before it is solved, and energies are scaled back to the
problem's own units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from problems.budget import BudgetQUBO
from problems.checks import is_tensor
from problems.errors import InvalidProblemError
from problems.qubo import CardinalityQUBO

Problem = CardinalityQUBO | BudgetQUBO

#: Problems whose largest coefficient lies within ``2**-SAFE … 2**SAFE`` are not scaled: products
#: of two factors and sums of them are normal numbers in float32 too.
SAFE = 64
#: Range of the exponent of an offset, with coefficients of about 1: a larger offset would absorb
#: them, a smaller one would lose bits.
_SMALLEST_OFFSET, _LARGEST_OFFSET = -900, 128


@dataclass(frozen=True)
class Scaled:
    """A problem with its energies multiplied by ``2**exponent``, and the inverse conversion."""

    problem: Problem
    exponent: int
    """0 if the problem was not scaled."""
    dropped: float = 0.0
    """Offset left out of the scaled energies, in the original units."""

    @classmethod
    def of(cls, problem: Problem, safe: int = SAFE) -> Scaled:
        """Scale a problem if its largest coefficient is far from 1.

        The scaled problem is in float64. Entries below ``2**-1074`` of the largest
        become 0; all others keep their bits.

        Parameters
        ----------
        problem : CardinalityQUBO or BudgetQUBO
        safe : int
            A largest coefficient within ``2**-safe … 2**safe`` is not scaled.
        """
        size = magnitude(problem)
        if size is None or abs(size) <= safe:
            return cls(problem, 0)
        exponent = -size
        fits = _SMALLEST_OFFSET <= _size(problem.offset) + exponent <= _LARGEST_OFFSET
        offset = math.ldexp(problem.offset, exponent) if fits else 0.0
        constraint: dict[str, Any] = problem.constraint | {"offset": offset}
        kind = type(problem)
        held: Any = problem.held
        if problem.is_factored:
            A, linear = times_power(held.A, exponent // 2), times_power(held.linear, exponent)
            scaled = kind.from_factors(A, linear, **constraint)
        else:
            Q = times_power(held.Q, exponent)
            scaled = kind(Q, **constraint)
        return cls(scaled, exponent, 0.0 if fits else problem.offset)

    def restore(self, energy: float) -> float:
        """Return an energy in the original units."""
        return float(np.ldexp(energy, -self.exponent)) + self.dropped

    def restore_bound(self, bound: float) -> float | None:
        """Return a lower bound in the original units, rounded down; None if it overflows."""
        with np.errstate(over="ignore"):
            value = np.ldexp(bound, -self.exponent)
        if np.ldexp(value, self.exponent) > bound:
            value = np.nextafter(value, -np.inf)
        return float(value) + self.dropped if np.isfinite(value) else None


def magnitude(problem: Problem) -> int | None:
    """Return the exponent ``e`` of the largest coefficient, ``2**(e-1) ≤ |c| < 2**e``.

    For a factored problem it is even, and the larger one of the linear terms and the squared
    factors. None if all coefficients are 0.
    """
    first, second = problem.peaks
    if first == 0 and second == 0:
        return None
    if not problem.is_factored:
        return _size(first)
    factor = [2 * _size(first)] if first else []
    linear = [_size(second) + _size(second) % 2] if second else []
    return max(factor + linear)


def check_energies(problem: Problem) -> None:
    """Refuse a problem whose energies may overflow float64.

    Raises
    ------
    InvalidProblemError
        The message names the factor to scale by.
    """
    size = magnitude(problem)
    if size is None or size <= SAFE:
        return
    scaled = Scaled.of(problem)
    # Local fields may reach twice the sum of all magnitudes.
    excess = _size(2 * _total(scaled.problem)) - scaled.exponent - np.finfo(float).maxexp
    if excess > 0:
        root = -(-excess // 2)
        remedy = f"A by 2**{root} and linear by 2**{2 * root}"
        raise InvalidProblemError(
            f"coefficients are as large as 2**{size}, and energies overflow float64; "
            f"divide {remedy if problem.is_factored else f'Q by 2**{excess}'}, which changes "
            "no solution"
        )


def times_power(values: Any, exponent: int) -> Any:
    """Return ``values · 2**exponent`` in float64, exact unless it becomes subnormal."""
    if is_tensor(values):
        half = exponent // 2
        return values.double() * 2.0**half * 2.0 ** (exponent - half)
    return np.ldexp(values.astype(np.float64, copy=False), exponent)


def _size(value: float) -> int:
    return math.frexp(value)[1]


def coefficient_sum(problem: Problem) -> float:
    """Bound the sum of all absolute coefficients and the offset, in float64.

    It bounds every sum in an energy; rounding errors are a share of it.
    """
    if problem.is_factored:
        squares = np.square(np.abs(problem.A).sum(axis=1, dtype=np.float64))
        size = float(squares.sum() + np.abs(problem.linear).sum())
    else:
        size = float(np.abs(problem.Q).sum(dtype=np.float64))
    return size + abs(problem.offset)


def _total(problem: Problem) -> float:
    """Bound the energies of all states, without the offset, by absolute sums."""
    held: Any = problem.held
    if not problem.is_factored:
        return float(abs(held.Q).sum())
    return float((abs(held.A).sum(1) ** 2).sum() + abs(held.linear).sum())
