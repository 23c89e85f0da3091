"""One line per pass, on standard error or in the log."""

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
    """Describe the state of a run after a pass."""
    parts = [f"pass {progress.step} of {progress.passes}"]
    if progress.step < progress.passes and math.isfinite(progress.remaining):
        parts.append(f"{clock(progress.remaining)} left")
    parts.append(f"held-out loss {progress.loss:.4f}")
    if progress.blocks:
        parts.append(f"{progress.accepted} of {progress.blocks} blocks kept")
    return ", ".join(parts)


def progress_printer(wanted: bool | None) -> Callable[[Progress], None]:
    """Return a callback that prints or logs the progress of a run.

    Parameters
    ----------
    wanted : bool, optional
        True prints one line per pass to standard error, False prints nothing. None prints if
        standard error is a terminal, and otherwise logs the lines (logger ``icbs``, INFO).
    """
    if wanted is False or parallel.rank() > 0:
        return lambda progress: None
    if wanted or sys.stderr.isatty():
        return lambda progress: print(line(progress), file=sys.stderr, flush=True)
    return lambda progress: log.info("%s", line(progress))
