"""The figure of a recovery: loss on calibration and on held-out samples after each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icbs.recovery.result import StepRecord
from problems.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_recovery(
    history: Sequence[StepRecord], path: Path, *, dense_loss: float = float("nan")
) -> None:
    """Draw a recovery into a PNG or SVG file, by its extension.

    Parameters
    ----------
    history : sequence of StepRecord
    path : Path
    dense_loss : float
        Held-out loss of the dense model; NaN to leave it out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = recovery_figure(history, dense_loss)
    with atomic(path) as temporary:
        form = path.suffix.removeprefix(".") or "png"
        FigureCanvasAgg(figure).print_figure(temporary, format=form, dpi=120)


def recovery_figure(history: Sequence[StepRecord], dense_loss: float) -> Figure:
    """Return a figure of both losses; where they part, the recovery overfits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    judged = [(at, row) for at, row in enumerate(history) if math.isfinite(row.heldout_loss)]
    steps = [at + 1 for at, _ in judged]
    for name, values, colour in (
        ("calibration", [row.calibration_loss for _, row in judged], "C0"),
        ("held out", [row.heldout_loss for _, row in judged], "C1"),
    ):
        axes.plot(steps, values, color=colour, lw=2, marker=".", label=name)
    if best := [(at + 1, row.heldout_loss) for at, row in judged if row.best]:
        axes.plot(*best[-1], "o", ms=9, mfc="none", color="black", label="result")
    if math.isfinite(dense_loss):
        axes.axhline(dense_loss, color="black", lw=1, label="dense, held out")
    for at in range(1, len(history)):
        if history[at].method != history[at - 1].method:
            axes.axvline(at + 0.5, color="grey", lw=0.5)
    methods = dict.fromkeys(row.method for row in history)
    axes.set(xlabel=f"step ({', '.join(methods)})", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
