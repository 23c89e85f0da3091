"""Decisions on acceptance, by block or by pass, and the course of the held-out loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from icbs.run.history import BlockRecord


@dataclass(frozen=True)
class Decision:
    """Acceptance or rejection of a block or a pass."""

    step: int
    """Pass, from 0."""
    seconds: float
    """Wall seconds since the start of the run."""
    layers: tuple[str, ...]
    """Layers whose weights moved."""
    predicted: float
    """Change of the loss by the quadratic models, summed over the blocks."""
    actual: float
    """Change of the held-out loss."""
    accepted: bool


def decisions(history: Sequence[BlockRecord], *, by_pass: bool) -> list[Decision]:
    """Collect the decisions on acceptance; blocks without moves are left out.

    Parameters
    ----------
    history : sequence of BlockRecord
        Rows of a run, in order.
    by_pass : bool
        Whether acceptance was decided for whole passes. Each attempt of a pass that is rejected
        and solved again is a decision.
    """
    found = []
    for rows in _attempts(history) if by_pass else ([row] for row in history):
        moved = [row for row in rows if row.moved]
        if moved:
            found.append(
                Decision(
                    step=moved[0].step,
                    seconds=moved[-1].seconds,
                    layers=tuple(row.layer for row in moved),
                    predicted=math.fsum(row.predicted for row in moved),
                    actual=moved[0].actual,
                    accepted=moved[0].accepted,
                )
            )
    return found


def held_out_loss(
    initial: float, decided: Sequence[Decision], history: Sequence[BlockRecord] = ()
) -> list[tuple[float, float]]:
    """Return points (seconds, held-out loss of the current masks and weights).

    Parameters
    ----------
    initial : float
        Loss of the initial masks.
    decided : sequence of Decision
    history : sequence of BlockRecord
        Rows of the run, for its moves of the weights.
    """
    changes = [
        (decision.step, decision.seconds, decision.actual)
        for decision in decided
        if decision.accepted and math.isfinite(decision.actual)
    ]
    # Weights move after the blocks of a pass.
    changes += [(row.step, row.seconds, row.weights) for row in history if row.weights]
    points, loss = [(0.0, initial)], initial
    for _, seconds, change in sorted(changes, key=lambda change: change[:2]):
        loss += change
        points.append((seconds, loss))
    if decided and decided[-1].seconds > points[-1][0]:
        points.append((decided[-1].seconds, loss))
    return points


def _attempts(history: Sequence[BlockRecord]) -> Iterator[list[BlockRecord]]:
    """Split the rows of each pass into attempts.

    In histories of earlier releases, which don't number them, a repeated layer starts a new one.
    """
    for (_, number), rows in groupby(history, key=lambda row: (row.step, row.attempt)):
        attempt: list[BlockRecord] = []
        for row in rows:
            if number is None and any(row.layer == earlier.layer for earlier in attempt):
                yield attempt
                attempt = []
            attempt.append(row)
        yield attempt
