"""The figure of a run: test figures and held-out loss over time, predicted and actual change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbs.formatting import STANDARD_ERROR, counted, is_share, label, metrics, number, significant
from icbs.report.decisions import Decision, decisions, held_out_loss
from icbs.report.evaluations import Evaluation
from icbs.report.layers import natural
from icbs.report.screen import visible
from icbs.run.history import BlockRecord
from problems.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_COLOURS = 8
"""Number of layers up to which each has its own colour in the scatter of predictions."""
_LOG_RATIO = 20.0
"""Ratio of largest to smallest value above which an axis is logarithmic."""


@dataclass(frozen=True)
class Curve:
    """A run to draw."""

    name: str
    evaluations: Sequence[Evaluation]
    history: Sequence[BlockRecord]
    initial_loss: float = float("nan")
    """Held-out loss of the initial masks; NaN if not known."""
    by_pass: bool = False
    """Whether acceptance was decided for whole passes."""

    @property
    def decisions(self) -> list[Decision]:
        """The decisions on acceptance, in order."""
        return decisions(self.history, by_pass=self.by_pass)


def draw(
    curves: Sequence[Curve], references: Mapping[str, Mapping[str, float]], path: Path
) -> None:
    """Draw runs into a PNG or SVG file, by its extension.

    Parameters
    ----------
    curves : sequence of Curve
    references : mapping
        Name → figures, drawn as horizontal lines.
    path : Path
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = run_figure(curves, references)
    format = path.suffix.removeprefix(".") or "png"
    with atomic(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format=format, dpi=120)


def run_figure(curves: Sequence[Curve], references: Mapping[str, Mapping[str, float]]) -> Figure:
    """Return a figure with panels for test figures, held-out loss, and changes of the loss."""
    from matplotlib.figure import Figure

    names: dict[str, None] = {}
    for curve in curves:
        for row in curve.evaluations:
            names |= dict.fromkeys(metrics(row.figures))
    losses = [curve for curve in curves if math.isfinite(curve.initial_loss)]
    decided = [curve for curve in curves if curve.decisions]
    panels = len(names) + bool(losses) + bool(decided) or 1
    across = min(panels, 2 if panels == 4 else 3)
    rows = -(-panels // across)
    figure = Figure(figsize=(5.2 * across, 4.6 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, across, squeeze=False).flat)
    for name in names:
        _test_panel(next(axes), curves, references, name)
    if losses:
        _loss_panel(next(axes), losses)
    if decided:
        _prediction_panel(next(axes), decided)
    if not (names or losses or decided):
        next(axes).text(0.5, 0.5, "no pass yet", ha="center", va="center")
    for spare in axes:
        spare.set_axis_off()
    return figure


def _test_panel(
    axes: Any, curves: Sequence[Curve], references: Mapping[str, Mapping[str, float]], name: str
) -> None:
    scale = 100.0 if is_share(name) else 1.0
    drawn: list[float] = []
    for i, (title, figures) in enumerate(references.items()):
        if name in figures:
            value = scale * figures[name]
            style = {"color": "black"} if title == "dense" else {"color": f"C{i + 2}", "ls": "--"}
            axes.axhline(
                value, lw=1, label=f"{_text(title)} {number(name, figures[name])}", **style
            )
            drawn.append(value)
    for i, curve in enumerate(curves):
        rows = [row for row in curve.evaluations if name in row.figures]
        seconds = [row.seconds for row in rows]
        values = [scale * row.figures[name] for row in rows]
        axes.plot(seconds, values, color=f"C{i}", lw=2, marker=".", label=_text(curve.name))
        errors = [scale * row.figures.get(name + STANDARD_ERROR, 0.0) for row in rows]
        if any(errors):
            low = [value - error for value, error in zip(values, errors, strict=True)]
            high = [value + error for value, error in zip(values, errors, strict=True)]
            axes.fill_between(seconds, low, high, color=f"C{i}", alpha=0.2, lw=0)
        drawn += values
    axes.set(
        xlabel="seconds of pruning", ylabel=_text(f"test {label(name)}{' (%)' * is_share(name)}")
    )
    _finish(axes, drawn, log=not is_share(name))


def _loss_panel(axes: Any, curves: Sequence[Curve]) -> None:
    drawn: list[float] = []
    for i, curve in enumerate(curves):
        points = held_out_loss(curve.initial_loss, curve.decisions, curve.history)
        seconds, values = zip(*points, strict=True)
        text = f"{_text(curve.name)}: {significant(values[0])} to {significant(values[-1])}"
        axes.plot(seconds, values, color=f"C{i}", lw=2, label=text)
        drawn += values
    axes.set(xlabel="seconds of pruning", ylabel="held-out training loss")
    _finish(axes, drawn, log=True)


def _prediction_panel(axes: Any, curves: Sequence[Curve]) -> None:
    by_pass = all(curve.by_pass for curve in curves)
    points = [decision for curve in curves for decision in curve.decisions]
    names = sorted({name for decision in points for name in decision.layers}, key=natural)
    if by_pass:
        parts = {"pass": points}
    elif len(names) > MAX_COLOURS:
        parts = {counted(len(names), "layer"): points}
    else:
        parts = {f"layer {name}": [p for p in points if p.layers == (name,)] for name in names}
    for i, (part, own) in enumerate(parts.items()):
        for accepted, marker, word in ((True, "o", "accepted"), (False, "x", "rejected")):
            chosen = [point for point in own if point.accepted is accepted]
            if chosen:
                axes.scatter(
                    [point.predicted for point in chosen],
                    [point.actual for point in chosen],
                    s=16, marker=marker, color=f"C{i}", alpha=0.7,
                    label=f"{_text(part)}, {word} ({len(chosen)})",
                )  # fmt: skip
    finite = [p for p in points if math.isfinite(p.predicted) and math.isfinite(p.actual)]
    if finite:
        low = min(min(p.predicted for p in finite), min(p.actual for p in finite), -1e-9)
        axes.plot([low, 0], [low, 0], color="black", lw=1, label="predicted = actual")
        axes.axhline(0, color="grey", lw=0.5)
        # Changes differ by orders of magnitude and in sign.
        sizes = sorted(abs(p.actual) for p in finite if p.actual)
        threshold = max(sizes[len(sizes) // 10] if sizes else 1e-3, abs(low) * 1e-4)
        axes.set_xscale("symlog", linthresh=threshold)
        axes.set_yscale("symlog", linthresh=threshold)
        axes.set_xlim(1.3 * low, threshold)
        for axis in (axes.xaxis, axes.yaxis):
            _decades(axis, threshold)
    what = "a pass" if by_pass else "a block"
    axes.set(xlabel=f"predicted change of the loss by {what}", ylabel="actual change (held out)")
    _finish(axes, [])


def _finish(axes: Any, values: Iterable[float], *, log: bool = False) -> None:
    """Set the scale, the format of ticks, and the legend below the axes."""
    from matplotlib.ticker import LogLocator, NullFormatter

    known = [value for value in values if math.isfinite(value)]
    if log and known and min(known) > 0 and max(known) > _LOG_RATIO * min(known):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        _plain_ticks(axes.yaxis)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _decades(axis: Any, threshold: float) -> None:
    """Set ticks at 0 and at powers of ten outside of the linear part of an axis."""
    low, high = axis.get_view_interval()
    first = math.ceil(math.log10(threshold) + 0.5)
    powers = [10.0**power for power in range(first, 9)]
    ticks = [-power for power in powers if low <= -power] + [0.0]
    axis.set_ticks(ticks + [power for power in powers if power <= high])
    axis.set_ticks([], minor=True)
    _plain_ticks(axis)


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _text(name: str) -> str:
    """Escape a label, so that $ does not start a formula and a leading _ does not hide it."""
    return ("\u200a" if name.startswith("_") else "") + visible(name).replace("$", r"\$")
