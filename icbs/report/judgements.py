"""What each evaluation of the held-out loss judged: a block's move, or a whole pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from icbs.run.history import Row


@dataclass(frozen=True)
class Judgement:
    """One evaluation of the held-out loss."""

    step: int
    """Pass, from 0."""
    seconds: float
    """Wall seconds since the run began."""
    layers: tuple[str, ...]
    """Layers whose weights moved."""
    predicted: float
    """Change of the loss by the quadratic models, summed over what was judged together."""
    actual: float
    """Change of the held-out loss."""
    accepted: bool


def judgements(history: Sequence[Row], *, by_pass: bool) -> list[Judgement]:
    """Collect what was judged together; blocks in which nothing moved are left out.

    Parameters
    ----------
    history : sequence of Row
        Rows of a run, in their order.
    by_pass : bool
        Whether all moves of a pass were judged together. A pass that is undone and solved
        again counts as often as it was judged.
    """
    found = []
    for rows in _attempts(history) if by_pass else ([row] for row in history):
        moved = [row for row in rows if row.moved]
        if moved:
            found.append(
                Judgement(
                    step=moved[0].step,
                    seconds=moved[-1].seconds,
                    layers=tuple(row.layer for row in moved),
                    predicted=math.fsum(row.predicted for row in moved),
                    actual=moved[0].actual,
                    accepted=moved[0].accepted,
                )
            )
    return found


def held_out_loss(initial: float, judged: Sequence[Judgement]) -> list[tuple[float, float]]:
    """Return (seconds, held-out loss of the current mask), from the start on.

    Parameters
    ----------
    initial : float
        Loss of the initial mask.
    judged : sequence of Judgement
    """
    points, loss = [(0.0, initial)], initial
    for judgement in judged:
        if judgement.accepted and math.isfinite(judgement.actual):
            loss += judgement.actual
            points.append((judgement.seconds, loss))
    if judged and judged[-1].seconds > points[-1][0]:
        points.append((judged[-1].seconds, loss))
    return points


def _attempts(history: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut the rows of each pass where a layer comes again, which begins another attempt."""
    for _, rows in groupby(history, key=lambda row: row.step):
        attempt: list[Row] = []
        for row in rows:
            if any(row.layer == earlier.layer for earlier in attempt):
                yield attempt
                attempt = []
            attempt.append(row)
        yield attempt
