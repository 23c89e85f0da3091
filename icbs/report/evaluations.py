"""Evaluations on test samples during a run, as a callback and as a CSV file."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from icbs.errors import RunFolderError
from icbs.run.result import Progress
from problems.files import atomic, regular

FILE = "evaluations.csv"
log = logging.getLogger("icbs")


@dataclass(frozen=True)
class Evaluation:
    """Test figures after a number of passes."""

    step: int
    seconds: float
    """Wall seconds since the start of the run, without evaluations."""
    figures: dict[str, float]


@dataclass
class Evaluator:
    """Callback that evaluates the model at intervals and saves the figures in the run folder.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(model)``: figures by name.
    every : int
        Passes between evaluations.
    folder : Path, optional
        Folder for ``evaluations.csv``.
    rows : list of Evaluation
        Earlier evaluations of a resumed run.
    """

    evaluate: Callable[[nn.Module], dict[str, float]]
    every: int
    folder: Path | None = None
    rows: list[Evaluation] = field(default_factory=list)
    seconds: float = 0.0
    """Wall seconds of the last evaluation."""

    def __call__(self, progress: Progress) -> None:
        """Evaluate every ``every`` passes, and after the last one."""
        if progress.step % self.every == 0 or progress.step == progress.passes:
            self.add(progress.step, progress.seconds, progress.model)

    def remaining(self, progress: Progress) -> float:
        """Return the estimated seconds of the remaining evaluations."""
        count = progress.passes // self.every - progress.step // self.every
        count += progress.passes % self.every != 0
        return self.seconds * (count if progress.step < progress.passes else 0)

    @property
    def latest(self) -> dict[str, float]:
        """Figures of the last evaluation; empty before the first."""
        return self.rows[-1].figures if self.rows else {}

    def add(self, step: int, seconds: float, model: nn.Module) -> Evaluation:
        """Evaluate the model and record the figures."""
        start = time.perf_counter()
        row = Evaluation(step, seconds, self.evaluate(model))
        self.seconds = time.perf_counter() - start
        self.rows = [old for old in self.rows if old.step < step] + [row]
        if self.folder is not None and self.folder.exists():
            try:
                write_evaluations(self.rows, self.folder / FILE)
            except OSError as error:  # the run continues
                log.warning("the figures of pass %d can't be saved: %s", step, error)
        return row


def write_evaluations(rows: Sequence[Evaluation], path: Path) -> None:
    """Write rows as CSV, atomically."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "seconds", *names])
        for row in rows:
            figures = [row.figures.get(name, math.nan) for name in names]
            writer.writerow([row.step, row.seconds, *figures])


def read_evaluations(path: Path) -> list[Evaluation]:
    """Read a file of :func:`write_evaluations`; returns no rows if it does not exist.

    Raises
    ------
    RunFolderError
        If the file is damaged.
    """
    if not path.exists():
        return []
    try:
        with regular(path).open(newline="", encoding="utf-8") as file:
            return [_row(record) for record in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunFolderError(f"{path} is not a readable table of evaluations: {error}") from error


def _row(record: dict[str, str]) -> Evaluation:
    step, seconds = int(record.pop("step")), float(record.pop("seconds"))
    return Evaluation(step, seconds, {name: float(value) for name, value in record.items()})
