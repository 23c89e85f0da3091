"""Progress display of a comparison of solvers."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from icbs.formatting import clock, counted
from solvers.comparison import Campaign
from solvers.comparison import Progress as Standing

_LINE_EVERY = 10.0
"""Seconds between two lines, where no terminal can show a bar."""


class CampaignLive:
    """Progress bar of a campaign: runs done, time left, failures.

    If the console is not a terminal, lines are written instead.

    Parameters
    ----------
    console : rich.console.Console
    campaign : Campaign
    """

    def __init__(self, console: Console, campaign: Campaign) -> None:
        self.console, self.campaign = console, campaign
        self.solver_seconds = 0.0
        """Wall seconds of the runs that were done since."""
        self._last = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.completed}/{task.total} runs"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=len(campaign.runs), figures="")

    def __enter__(self) -> CampaignLive:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, standing: Standing) -> None:
        """Take where the campaign stands."""
        seconds = self.campaign.answers[standing.run.key]["end"]["seconds"]
        self.solver_seconds += seconds if math.isfinite(seconds) else 0.0
        parts = [f"{clock(standing.remaining)} left"]
        if standing.failures:
            parts.append(f"{counted(standing.failures, 'failure')}")
        parts.append(f"{standing.run.solver} on {standing.run.problem}")
        figures = "  ".join(parts)
        self._bar.update(self._task, completed=standing.done, figures=figures)
        due = time.monotonic() - self._last > _LINE_EVERY or standing.done == standing.total
        if due and not self.console.is_terminal:
            self._last = time.monotonic()
            line = f"{standing.done} of {standing.total} runs  {figures}"
            self.console.print(Text(line), soft_wrap=True)
