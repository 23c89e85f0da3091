"""A line for each pass: on the screen of who waits for a run, or in the log."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable

from icbs import parallel
from icbs.formatting import clock
from icbs.run.result import Progress

log = logging.getLogger("icbs")


def line(progress: Progress) -> str:
    """Say where a run stands after a pass."""
    parts = [
        f"pass {progress.step} of {progress.passes}",
        f"held-out loss {progress.loss:.4f}",
        f"density {progress.density:.4f}",
    ]
    if progress.blocks:
        parts.append(f"{progress.accepted} of {progress.blocks} blocks kept")
    if progress.step < progress.passes and math.isfinite(progress.remaining):
        parts.append(f"{clock(progress.remaining)} left")
    return ", ".join(parts)


def progress_printer(wanted: bool | None) -> Callable[[Progress], None]:
    """Return a callback that says where a run stands.

    Parameters
    ----------
    wanted : bool, optional
        True prints a line a pass to standard error, False says nothing. None prints where
        standard error is a terminal, and elsewhere logs each line (logger ``icbs``, INFO).
    """
    if wanted is False or parallel.rank() > 0:  # One of several processes speaks for all.
        return lambda progress: None
    if wanted or sys.stderr.isatty():
        return lambda progress: print(line(progress), file=sys.stderr, flush=True)
    return lambda progress: log.info("%s", line(progress))
