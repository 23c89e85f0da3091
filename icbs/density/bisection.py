"""Bisection over densities on a logarithmic scale, without a state of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping


def next_density(
    met: Mapping[float, bool], low: float, high: float, tolerance: float
) -> float | None:
    """Return the density to try next; None at the end of the search.

    The highest density is first; the lowest is tried only if all others meet the target.

    Parameters
    ----------
    met : mapping of float to bool
        Density → whether it meets the target, for all densities tried so far.
    low, high : float
        Range of the search.
    tolerance : float
        The search ends if the lowest density that meets the target is at most ``1 + tolerance``
        times the next lower one, which does not.
    """
    if high not in met:
        return high
    if not met[high]:
        return None
    best = min(density for density, good in met.items() if good)
    failed = [density for density, good in met.items() if not good and density < best]
    floor = max(failed, default=low)
    if best > floor * (1 + tolerance):
        return rounded(math.sqrt(best * floor))
    return None if failed or best == low else low


def rounded(density: float) -> float:
    """Round to four significant digits, so that names of folders are the exact densities."""
    return float(f"{density:.4g}")


def number_of_runs(low: float, high: float, tolerance: float) -> int:
    """Return the expected number of runs of a search."""
    ratio = math.log(high / low) / math.log1p(tolerance)
    return 1 + math.ceil(math.log2(max(1.0, ratio))) + 1
