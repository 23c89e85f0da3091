"""One line per step of a recovery, on standard error or in the log."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable

from icbs.formatting import clock, significant
from icbs.recovery.result import RecoveryProgress

log = logging.getLogger("icbs")


def line(progress: RecoveryProgress) -> str:
    """Describe the state of a recovery after a step."""
    row = progress.row
    parts = [f"{progress.method} {progress.done}/{progress.total}: {progress.label}"]
    if progress.done < progress.total and math.isfinite(progress.remaining):
        parts.append(f"{clock(progress.remaining)} left")
    if math.isfinite(row.calibration_error):
        error = f"error {significant(row.calibration_error)} on calibration samples"
        parts.append(f"{error}, {significant(row.heldout_error)} held out")
    if math.isfinite(row.heldout_loss):
        loss = f"loss {significant(row.calibration_loss)} on calibration samples"
        parts.append(f"{loss}, {significant(row.heldout_loss)} held out")
    if math.isfinite(row.heldout_divergence):
        parts.append(f"divergence {significant(row.heldout_divergence)} held out")
    parts.append(f"best {significant(progress.best_loss)}")
    return "; ".join(parts)


def progress_printer(wanted: bool | None) -> Callable[[RecoveryProgress], None]:
    """Return a callback that prints or logs the progress; see :func:`icbs.recover`."""
    if wanted is False:
        return lambda progress: None
    if wanted or sys.stderr.isatty():
        return lambda progress: print(line(progress), file=sys.stderr, flush=True)
    return lambda progress: log.info("%s", line(progress))
