"""Follow a comparison of solvers that another process carries out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solvers.comparison.journal import RUNS, is_comparison, parse_line
from solvers.comparison.pace import Pace
from solvers.comparison.planned import Planned

if TYPE_CHECKING:
    from pandas import DataFrame

_QUIET = 60.0
"""Seconds without a new run, beyond its limit, after which a comparison may be interrupted."""


class ComparisonReader:
    """Finished runs of a comparison, from its journal.

    Parameters
    ----------
    path : Path
        Folder of a comparison, finished or not.

    Raises
    ------
    CampaignError
        If the list of its runs is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.planned = Planned.load(path)
        self.version = 0
        """Number of changes so far."""
        self.deleted = False
        self.problem = ""
        """Message on a line that can't be read; empty without one."""
        self._clear()
        self.refresh()

    def _clear(self) -> None:
        self._offset = 0
        self.statuses: dict[str, str] = {}
        """Key of a finished run → its status."""
        self._rows: list[dict[str, Any]] = []
        planned = self.planned
        solvers = (run.solver for run in planned.runs.values())
        self._pace = Pace(solvers, planned.time_limit, planned.jobs)

    def refresh(self) -> int:
        """Read the runs that have ended since; return :attr:`version`."""
        gone, problem = not is_comparison(self.path), self.problem
        before = (len(self.statuses), self.deleted, problem)
        self.deleted = gone
        if not gone:
            try:
                self._read()
                self.problem = ""
            except FileNotFoundError:  # no run has ended, or deleted in between
                self.problem = ""
            except OSError as error:
                self.problem = str(error)
        if before != (len(self.statuses), self.deleted, self.problem):
            self.version += 1
        return self.version

    def _read(self) -> None:
        with (self.path / RUNS).open("rb") as file:
            if file.seek(0, 2) < self._offset:  # started again, or cut to its last whole line
                self._clear()
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    answer = parse_line(line)
                except (ValueError, KeyError, TypeError) as error:
                    raise OSError(f"a line of {self.path / RUNS} is damaged ({error})") from error
                self._add(answer)
                self._offset += len(line)

    def _add(self, answer: dict[str, Any]) -> None:
        key, end = answer["run"], answer["end"]
        if key not in self.planned.runs or key in self.statuses:
            return
        self.statuses[key] = end["status"]
        ran = end["status"] != "unsupported"
        self._pace.add(self.planned.runs[key].solver, end["seconds"] if ran else float("nan"))
        self._rows += self.planned.rows(key, answer)

    def table(self) -> DataFrame:
        """Return the table of the finished runs (:mod:`solvers.comparison.table`)."""
        from solvers.comparison.table import frame_of

        return frame_of(self._rows)

    @property
    def finished(self) -> bool:
        """Whether all runs have ended."""
        return len(self.statuses) == len(self.planned.runs)

    @property
    def quiet(self) -> float:
        """Seconds since the last run ended."""
        try:
            return max(0.0, time.time() - (self.path / RUNS).stat().st_mtime)
        except OSError:
            return 0.0

    @property
    def remaining(self) -> float:
        """Estimated seconds until the last run ends."""
        return max(0.0, self._pace.remaining - self.quiet)

    @property
    def state(self) -> str:
        """Words on the state of the comparison."""
        if self.deleted:
            return "folder deleted; figures as last read"
        if self.finished:
            return "finished"
        quiet = self.quiet
        if quiet > _QUIET + 1.1 * self.planned.time_limit + self.planned.grace:
            return f"not finished; no new run for {quiet / 60:.0f} min"
        return "running"
