"""Progress of a run on disk, one row per pass, for programs that follow it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil
import torch

from icbs.errors import RunFolderError
from icbs.run.costs import Costs
from icbs.run.result import Progress
from icbs.run.state import RunState
from icbs.run.table_file import TableFile

PROGRESS = "progress.csv"
_INTERVAL = 1.0
"""Smallest number of seconds between two writes."""
_SHARE = 0.005
"""Largest share of a run's time that is spent on writing."""


@dataclass(frozen=True)
class ProgressRecord:
    """The row of one pass."""

    step: int
    """Number of passes done."""
    passes: int
    """Number of passes of the whole run."""
    seconds: float
    """Wall seconds since the start of the run."""
    remaining: float
    """Estimated seconds left; NaN before the first pass."""
    loss: float
    """Held-out loss of the current masks."""
    density: float
    blocks: int
    accepted: int
    """Numbers of blocks so far, and of those that were kept."""
    memory: int
    """Bytes of memory that the process uses."""
    device_memory: int
    """Bytes of memory that tensors use on the current CUDA device; 0 without one."""
    start: float = 0.0
    """Wall seconds of the start, before the first pass."""
    curvature: float = 0.0
    building: float = 0.0
    solver: float = 0.0
    acceptance: float = 0.0
    """Wall seconds by part of the passes; see :class:`icbs.run.costs.Costs`."""

    @classmethod
    def of(cls, now: Progress, state: RunState) -> ProgressRecord:
        """Return the row of a state with its progress."""
        shared = {name: getattr(now, name) for name in _SHARED}
        costs: dict[str, Any] = dict(state.costs.seconds())
        return cls(
            **shared,
            memory=psutil.Process().memory_info().rss,
            device_memory=torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0,
            start=state.start_seconds,
            **costs,
        )

    @property
    def costs(self) -> dict[str, float]:
        """Wall seconds by part of the passes."""
        return {part: getattr(self, part) for part in Costs().seconds()}


_SHARED = {f.name for f in fields(ProgressRecord)} & {f.name for f in fields(Progress)}


class ProgressFile:
    """The file ``progress.csv`` of a run, written about once per second.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._table = TableFile(folder / PROGRESS, ProgressRecord, "table of progress", "delete it")
        self._rows: list[ProgressRecord] = []
        self._next = 0.0

    def restore(self, step: int) -> None:
        """Keep the rows up to a pass, of a run that is resumed after it."""
        with suppress(RunFolderError):
            self._rows = [row for row in self._table.read() if row.step <= step]

    def read(self) -> list[ProgressRecord]:
        """Read the rows of the file; none if it is missing, or damaged, as nothing relies on it."""
        with suppress(RunFolderError):
            return self._table.read()
        return []

    def add(self, now: Progress, state: RunState) -> bool:
        """Add the row of a state; return whether files are due to be written."""
        if not self._rows or self._rows[-1].step < state.step:
            self._rows.append(ProgressRecord.of(now, state))
        return time.monotonic() >= self._next

    def write(self) -> None:
        """Append the rows that are not in the file yet.

        Raises
        ------
        OSError
            If the file can't be written.
        """
        self._table.append(self._rows, sync=False)

    def wait(self, seconds: float) -> None:
        """Set the time of the next write, after one that took ``seconds``."""
        self._next = time.monotonic() + max(_INTERVAL, seconds / _SHARE)
