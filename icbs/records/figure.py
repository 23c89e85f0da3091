"""The picture of a run: test figures against time, and predicted against actual change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icbs.history import Row
from icbs.records.evaluations import Evaluation
from icbs.records.screen import visible
from problems.files import atomic

LAYERS = 8
"""Layers up to which each has its own colour."""

_REACH = 1e30


@dataclass(frozen=True)
class Curve:
    """One run to draw."""

    name: str
    evaluations: Sequence[Evaluation]
    history: Sequence[Row]


def draw(curves: Sequence[Curve], baselines: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw runs into a PNG.

    Parameters
    ----------
    curves : sequence of Curve
    baselines : mapping
        Name → figures, drawn as horizontal lines.
    path : Path
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    accuracy, loss, scatter = figure.subplots(1, 3)
    _over_time(accuracy, curves, baselines, "accuracy", 100.0, "test accuracy (%)")
    _over_time(loss, curves, baselines, "loss", 1.0, "test loss")
    _agreement(scatter, curves)
    with atomic(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=120)


def _drawable(value: float) -> float:
    """Bring a number within what axes can be scaled to."""
    return max(-_REACH, min(value, _REACH)) if math.isfinite(value) else math.nan


def _label(text: str) -> str:
    """Text of a legend: never mathematics between dollar signs, nor left out for a leading _."""
    return ("\u200a" if text.startswith("_") else "") + visible(text).replace("$", r"\$")


def _over_time(
    axes: Any,
    curves: Sequence[Curve],
    baselines: Mapping[str, Mapping[str, float]],
    figure: str,
    scale: float,
    label: str,
) -> None:
    for i, (name, figures) in enumerate(baselines.items()):
        if figure in figures:
            value = _drawable(scale * figures[figure])
            style = {"color": "black"} if name == "dense" else {"color": f"C{i + 2}", "ls": "--"}
            axes.axhline(value, lw=1, label=_label(f"{name} {value:.3g}"), **style)
    for i, curve in enumerate(curves):
        rows = [row for row in curve.evaluations if figure in row.figures]
        seconds = [_drawable(row.seconds) for row in rows]
        values = [_drawable(scale * row.figures[figure]) for row in rows]
        axes.plot(seconds, values, color=f"C{i}", lw=2, marker=".", label=_label(curve.name))
    axes.set(xlabel="seconds of pruning", ylabel=label)
    if figure == "loss":
        axes.set_yscale("log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _agreement(axes: Any, curves: Sequence[Curve]) -> None:
    rows = [
        replace(row, predicted=_drawable(row.predicted), actual=_drawable(row.actual))
        for curve in curves
        for row in curve.history
        if row.moved
    ]
    names = sorted({row.layer for row in rows})
    parts = {f"layer {name}": [row for row in rows if row.layer == name] for name in names}
    if len(names) > LAYERS:
        parts = {f"{len(names)} layers": rows}
    for i, (part, own) in enumerate(parts.items()):
        for accepted, marker in ((True, "o"), (False, "x")):
            chosen = [row for row in own if row.accepted is accepted]
            axes.scatter(
                [row.predicted for row in chosen],
                [row.actual for row in chosen],
                s=14,
                marker=marker,
                color=f"C{i}",
                alpha=0.7,
                label=_label(f"{part}, {'kept' if accepted else 'undone'}"),
            )
    if rows:
        changes = [change for row in rows for change in (row.predicted, row.actual)]
        low = min((change for change in changes if not math.isnan(change)), default=0.0)
        axes.plot([low, 0], [low, 0], color="black", lw=1)
        axes.axhline(0, color="grey", lw=0.5)
        # Changes span orders of magnitude and both signs.
        axes.set_xscale("symlog", linthresh=1e-3)
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_xlim(low, 1e-4)
        axes.legend(fontsize=8)
    axes.set(xlabel="predicted change of the loss", ylabel="actual change (held out)")
    axes.grid(alpha=0.3)
