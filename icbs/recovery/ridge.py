"""Search for the ridge of a least-squares problem by the error on held-out samples."""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST, LEAST, LARGEST = -1, -4, 1
"""Exponents of 10 of the ridges that are searched."""


def best_ridge(error: Callable[[float], float]) -> float:
    """Return the power of 10 with the lowest error, between its neighbours.

    Parameters
    ----------
    error : callable
        Error with a ridge; NaN counts as infinite.
    """
    errors: dict[int, float] = {}
    trial: int | None = FIRST
    while trial is not None:
        found = error(10.0**trial)
        errors[trial] = math.inf if math.isnan(found) else found
        best = min(errors, key=lambda exponent: errors[exponent])
        trial = next((n for n in (best + 1, best - 1) if _is_new(n, errors)), None)
    return 10.0**best


def _is_new(exponent: int, errors: dict[int, float]) -> bool:
    return exponent not in errors and LEAST <= exponent <= LARGEST
