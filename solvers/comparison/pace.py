"""Estimate of the time that a campaign still takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable


class Pace:
    """Remaining time of a campaign, from the mean time of each solver's runs so far.

    Parameters
    ----------
    solvers : iterable of str
        Solver of each run that is left.
    time_limit : float
        Wall seconds of a run, assumed for solvers without a run.
    jobs : int
        Number of concurrent runs.
    """

    def __init__(self, solvers: Iterable[str], time_limit: float, jobs: int) -> None:
        self.left = Counter(solvers)
        self.spent: dict[str, list[float]] = {}
        self.time_limit, self.jobs = time_limit, jobs

    def add(self, solver: str, seconds: float) -> None:
        """Count a run that has ended; one without finite seconds has no effect on the mean."""
        self.left[solver] -= 1
        if math.isfinite(seconds):
            self.spent.setdefault(solver, []).append(seconds)

    @property
    def remaining(self) -> float:
        """Estimated seconds until the last run ends."""
        rest = 0.0
        for solver, count in self.left.items():
            took = self.spent.get(solver)
            rest += count * (sum(took) / len(took) if took else self.time_limit)
        return rest / self.jobs
