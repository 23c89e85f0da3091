"""Count passes that move no weight, and warn of them."""

from __future__ import annotations

from collections.abc import Iterable

from icbs.errors import NothingMovesWarning
from icbs.formatting import counted
from icbs.run.history import BlockRecord
from problems.warn import warn

IDLE = 3
"""Consecutive passes without a move after which the damping is lowered; also the number before
a warning if no weight has moved since the start of the run."""
AT_REST = 10
"""Consecutive passes without a move before a warning, if weights have moved earlier."""


def count_idle(latest: Iterable[BlockRecord]) -> int:
    """Count the latest consecutive passes without a move, from their records, newest first."""
    steps: set[int] = set()
    for row in latest:
        if row.moved or row.failure:
            return len(steps - {row.step})
        steps.add(row.step)
    return len(steps)


def warn_idle(passes: int, step: int, kappa: float) -> None:
    """Warn that no weight moves; the message names the setting to change."""
    warn(
        f"{counted(passes, 'pass')} in a row moved no weight of any layer, up to pass "
        f"{step}: either exchanges within blocks can't make the masks any better, or the "
        "curvature outweighs the gradient, as it does for a loss that is far from nats. If "
        f"this is early in a run, lower curvature_weight (now {kappa:.3g}), or scale the loss",
        NothingMovesWarning,
    )
