"""What a person sees while a run goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from icbs.formatting import clock, label, metrics, number
from icbs.report.evaluations import Evaluator
from icbs.run.result import Progress

_LINE_EVERY = 10.0
"""Seconds between two lines, where no terminal can show a bar."""


class Live:
    """Progress bar with held-out loss, test accuracy, density, blocks kept and time left.

    Where the console is no terminal but a file or a pipe, it writes lines instead.

    Parameters
    ----------
    console : rich.console.Console
    title : str
    evaluator : callable
        Evaluates when it is time to; see :class:`icbs.report.evaluations.Evaluator`.
    """

    def __init__(self, console: Console, title: str, evaluator: Evaluator) -> None:
        self.console, self.title, self.evaluator = console, title, evaluator
        self.spoken = -math.inf
        self.unsaid: str | None = None
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()
        if self.unsaid is not None:
            self._say(self.unsaid)

    def show(self, progress: Progress) -> None:
        """Take a pass's figures; the pruner's callback."""
        self.evaluator(progress)
        done, total, figures = progress.step, progress.passes, self._figures(progress)
        self.bar.update(self.task, total=total, completed=done, figures=figures)
        if not self.console.is_terminal:
            self.unsaid = f"{self.title}: pass {done} of {total}  {figures}"
            if time.monotonic() - self.spoken > _LINE_EVERY:
                self._say(self.unsaid)

    def _say(self, line: str) -> None:
        """Write a line, and wait before the next."""
        self.spoken, self.unsaid = time.monotonic(), None
        self.console.print(Text(line), soft_wrap=True)

    def _figures(self, progress: Progress) -> str:
        parts = [f"held-out loss {progress.loss:.3f}"]
        if self.evaluator.rows:
            last = self.evaluator.rows[-1]
            # An earlier evaluation says so, lest it be read as one of these masks.
            age = "" if last.step == progress.step else f" (pass {last.step})"
            for name in [name for name in metrics(last.figures) if name != "loss"][:2]:
                parts.append(f"test {label(name)} {number(name, last.figures[name])}{age}")
        parts.append(f"density {progress.density:.4f}")
        if progress.blocks:
            parts.append(f"kept {progress.accepted}/{progress.blocks} blocks")
            left = progress.remaining + self.evaluator.remaining(progress)
            parts.append(f"{clock(left)} left")
        return "  ".join(parts)
