"""Live progress of a run in a terminal or a log file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from icbs.formatting import clock, label, metrics, number
from icbs.report.evaluations import Evaluator
from icbs.run.result import Progress

_LINE_INTERVAL = 10.0
"""Seconds between two lines if the console is not a terminal."""


class Live:
    """Progress bar with pass, time left, held-out loss, test figures and blocks kept.

    If the console is a file or a pipe, lines are printed instead.

    Parameters
    ----------
    console : rich.console.Console
    title : str
    evaluator : Evaluator
        Called after each pass.
    """

    def __init__(self, console: Console, title: str, evaluator: Evaluator) -> None:
        self.console, self.title, self.evaluator = console, title, evaluator
        self.last_printed = -math.inf
        self.pending_line: str | None = None
        self.bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[figures]}"),
            console=console,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=None, figures="")

    def __enter__(self) -> Callable[[Progress], object]:
        self.bar.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.pending_line is not None:
            self._print(self.pending_line)

    def show(self, progress: Progress) -> None:
        """Evaluate if necessary and show a pass; the pruner's callback."""
        self.evaluator(progress)
        figures = self._figures(progress)
        self.bar.update(self.task, total=progress.passes, completed=progress.step, figures=figures)
        if not self.console.is_terminal:
            self.pending_line = f"{self.title}: {figures}"
            if time.monotonic() - self.last_printed > _LINE_INTERVAL:
                self._print(self.pending_line)

    def _print(self, line: str) -> None:
        self.last_printed, self.pending_line = time.monotonic(), None
        self.console.print(Text(line), soft_wrap=True)

    def _figures(self, progress: Progress) -> str:
        parts = [f"pass {progress.step}/{progress.passes}"]
        if progress.blocks:
            left = progress.remaining + self.evaluator.remaining(progress)
            parts.append(f"{clock(left)} left")
        parts.append(f"held-out loss {progress.loss:.3f}")
        if self.evaluator.rows:
            last = self.evaluator.rows[-1]
            # The pass of an earlier evaluation, so that it is not taken for the current masks'.
            age = "" if last.step == progress.step else f" (pass {last.step})"
            for name in [name for name in metrics(last.figures) if name != "loss"][:2]:
                parts.append(f"test {label(name)} {number(name, last.figures[name])}{age}")
        if progress.blocks:
            parts.append(f"kept {progress.accepted}/{progress.blocks} blocks")
        return "  ".join(parts)
