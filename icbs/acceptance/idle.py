"""Passes that move nothing: counted, and warned of."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from icbs.errors import NothingMovesWarning
from icbs.formatting import counted
from icbs.run.history import Row

IDLE = 3
"""Passes in a row that move nothing before the damping falls, and before a warning at the
beginning of a run."""
AT_REST = 10
"""The same before a warning, where weights have moved before."""


def count_idle(latest: Iterable[Row]) -> int:
    """Count the last passes in which nothing moved, from their rows, the latest first."""
    steps: set[int] = set()
    for row in latest:
        if row.moved or row.failure:
            return len(steps - {row.step})
        steps.add(row.step)
    return len(steps)


def warn_idle(passes: int, step: int, kappa: float) -> None:
    """Warn that nothing moves, and say what to change."""
    warnings.warn(
        f"{counted(passes, 'pass')} in a row moved no weight of any layer, up to pass "
        f"{step}: either exchanges within blocks can't make the masks any better, or the "
        "curvature outweighs the gradient, as it does for a loss that is far from nats. If "
        f"this is early in a run, lower curvature_weight (now {kappa:.3g}), or scale the loss",
        NothingMovesWarning,
        stacklevel=8,
    )
