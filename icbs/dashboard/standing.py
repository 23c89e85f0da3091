"""The present standing of a comparison: its measures over the runs that have ended."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from icbs.dashboard.comparison_reader import ComparisonReader
from solvers.comparison.extra import importing
from solvers.errors import TableError

if TYPE_CHECKING:
    from solvers.comparison.report.curves import Scene
    from solvers.comparison.report.figures import Chart

SHARE = 0.01
"""Largest share of the processors' time that is spent on measuring while solvers run."""
IF_ANY = ("failures", "unsupported")
"""Columns that are shown only if they are not zero."""


class Standing:
    """Measures of the finished runs, computed again as runs end.

    Until the last run has ended, measuring takes at most :data:`SHARE` of the time of this
    machine's processors, which the solvers use too.

    Parameters
    ----------
    reader : ComparisonReader
    """

    def __init__(self, reader: ComparisonReader) -> None:
        self.reader = reader
        with importing():  # refused before the page is served
            import solvers.comparison.measures
            import solvers.comparison.report.curves  # noqa: F401
        self.solvers = sorted(reader.planned.solvers)
        self.scene: Scene | None = None
        """Data of the charts; None before a run has ended."""
        self.charts: list[Chart] = []
        """Charts of the scene (:meth:`draw`)."""
        self.rows: list[dict[str, Any]] = []
        """Summary of each solver with a finished run, the best first."""
        self.runs = 0
        """Number of runs measured."""
        self.version = 0
        self._due = 0.0

    def update(self) -> int:
        """Measure if it is due; return :attr:`version`, which grows with each measurement."""
        done = len(self.reader.statuses)
        due = self.reader.finished or time.monotonic() >= self._due
        if done != self.runs and due:
            began = time.process_time()
            self._measure()
            self.runs, self.version = done, self.version + 1
            cost = time.process_time() - began
            self._due = time.monotonic() + cost / (SHARE * (os.cpu_count() or 1))
        return self.version

    @property
    def wait(self) -> float:
        """Seconds until the next measurement; 0 if all finished runs are measured."""
        new = len(self.reader.statuses) != self.runs
        return max(0.0, self._due - time.monotonic()) if new else 0.0

    def _measure(self) -> None:
        from solvers.comparison.measures import results, summary
        from solvers.comparison.report.curves import Scene

        with suppress(TableError):  # no run has ended
            found = results(self.reader.table())
            self.scene = Scene(found, self.solvers)
            self.charts = self.draw()
            self.rows = summary(found).to_dict("records")

    def draw(self) -> list[Chart]:
        """Draw the charts of the scene, the same ones with the same renderers each time."""
        from solvers.comparison.report.curves import anytime_chart, ecdf_chart

        return [ecdf_chart(self.scene), anytime_chart(self.scene)] if self.scene else []

    @property
    def headings(self) -> list[str]:
        """Headings of :meth:`cells`."""
        from solvers.comparison.measures import HEADINGS

        return [text for name, text in HEADINGS.items() if name in self._columns]

    @property
    def _columns(self) -> list[str]:
        from solvers.comparison.measures import HEADINGS

        return [n for n in HEADINGS if n not in IF_ANY or any(row[n] for row in self.rows)]

    def cells(self) -> list[list[str]]:
        """Return a row of text for each solver, the best first; those without a run are last."""
        from solvers.comparison.measures import HEADINGS, spelled

        runs = self.reader.planned.runs.values()
        every = Counter(run.solver for run in runs)
        table = []
        for row in self.rows:
            cells = dict(zip(HEADINGS, spelled(row), strict=True))
            cells["runs"] += f" of {every[row['solver']]}"
            table.append([cells[name] for name in self._columns])
        blank = ["–"] * (len(self._columns) - 2)
        measured = {row["solver"] for row in self.rows}
        table += [[s, f"0 of {every[s]}", *blank] for s in self.solvers if s not in measured]
        return table
