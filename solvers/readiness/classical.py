"""Seconds of a classical solver to a gap: measured, or read from a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from problems import CardinalityQUBO
from problems.planted import planted
from solvers.base import State

if TYPE_CHECKING:
    from pandas import DataFrame

#: Gap at which a state counts as the best known.
AT_BEST = 1e-6
#: Solver that is measured.
SOLVER = "anneal"


@dataclass(frozen=True)
class Classical:
    """Incumbents of a classical run, with gaps g = (E - E*)/(E₀ - E*)."""

    source: str
    """Such as ``"anneal, 0.5 s here"``, or the path of a comparison."""
    start: float
    """E₀: energy of the status quo, or the mean over all feasible states."""
    best: float
    """E*: the lowest energy known or found."""
    steps: tuple[tuple[float, float], ...] = field(repr=False, default=())
    """Seconds and gap of each improvement."""

    def seconds_to(self, gap: float) -> float | None:
        """Return the seconds to a gap, or to the best known state if the gap is below 1e-6.

        Returns
        -------
        float or None
            None if it was not reached.
        """
        reached = [seconds for seconds, own in self.steps if own <= max(gap, AT_BEST)]
        return reached[0] if reached else None


def measured(
    problem: CardinalityQUBO,
    start_energy: float,
    best: float | None = None,
    *,
    start: State | None = None,
    seconds: float = 0.5,
    seed: int = 0,
) -> Classical:
    """Run ``anneal`` for a short time on this machine.

    Parameters
    ----------
    problem : CardinalityQUBO
    start_energy : float
        E₀.
    best : float, optional
        Lowest energy known.
    start : ndarray of uint8, shape (n,), optional
        Status quo to start from.
    seconds : float
        Time limit.
    seed : int
    """
    from solvers.solve import solve

    _warm_up()
    found: list[tuple[float, float]] = []
    answer = solve(
        problem,
        SOLVER,
        time_limit=seconds,
        seed=seed,
        initial_state=start,
        callback=lambda at, energy: found.append((at, energy)),
    )
    found.append((answer.timing.total, answer.energy))
    lowest = min(energy for _, energy in found)
    least = lowest if best is None or math.isnan(best) else min(best, lowest)
    steps, reached = [], math.inf
    for at, energy in found:
        if energy < reached:
            reached = energy
            steps.append((at, gap_of(energy, least, start_energy)))
    source = f"{SOLVER}, {seconds:g} s here"
    return Classical(source, start_energy, least, tuple(steps))


class Comparison:
    """The fastest solvers of a comparison, by the median over seeds at each gap.

    Parameters
    ----------
    path : str or Path
        Folder of ``icbs compare``, or its table; read at once.

    Raises
    ------
    TableError, FileNotFoundError
        If the table can't be read.
    """

    def __init__(self, path: str | Path) -> None:
        from solvers.comparison import table
        from solvers.comparison.measures import results

        self.source = str(path)
        self._results = results(table.read(path))
        self._gaps = sorted({10.0 ** (-i / 5) for i in range(31)} | {AT_BEST}, reverse=True)

    @cached_property
    def _times(self) -> DataFrame:
        from solvers.comparison.measures import time_to_target

        return time_to_target(self._results, self._gaps)

    def fastest(self, name: str) -> Classical | None:
        """Return the times of a problem; None if the comparison has no such problem."""
        problems = self._results.problems.set_index("problem")
        if name not in problems.index:
            return None
        problem = problems.loc[name]
        times = self._times[self._times["problem"] == name]
        steps = []
        for gap in self._gaps:
            medians = times[times["target"] == gap].groupby("solver")["seconds"].median()
            if len(medians) and math.isfinite(medians.min()):
                steps.append((float(medians.min()), gap))
        return Classical(self.source, float(problem["start"]), float(problem["best"]), tuple(steps))


def gap_of(energy: float, best: float, start: float) -> float:
    """Return the gap of an energy; 0 if nothing is better than the start."""
    room = start - best
    return max(0.0, (energy - best) / room) if room > 0 else 0.0


@cache
def _warm_up() -> None:
    """Compile the kernels of the solver before the clock runs."""
    from solvers.solve import solve

    for problem in (planted(12, 6, 8).problem, planted(80, 40, 8).problem):
        solve(problem, SOLVER, time_limit=0.05, seed=0)
