"""The picture of a run: test figures and held-out loss against time, predictions against fact."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbs.formatting import STANDARD_ERROR, counted, is_share, label, metrics, number, significant
from icbs.report.evaluations import Evaluation
from icbs.report.judgements import Judgement, held_out_loss, judgements
from icbs.report.layers import natural
from icbs.report.screen import visible
from icbs.run.history import Row
from problems.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURED = 8
"""Layers up to which each has its own colour in the scatter of predictions."""
_LOG = 20.0
"""Ratio of largest to smallest value from which an axis is logarithmic."""


@dataclass(frozen=True)
class Curve:
    """One run to draw."""

    name: str
    evaluations: Sequence[Evaluation]
    history: Sequence[Row]
    initial_loss: float = float("nan")
    """Held-out loss of the initial mask; NaN where it is not known."""
    by_pass: bool = False
    """Whether all moves of a pass were judged together."""

    @property
    def judged(self) -> list[Judgement]:
        """What was judged together, in its order."""
        return judgements(self.history, by_pass=self.by_pass)


def draw(curves: Sequence[Curve], baselines: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw runs into a file, PNG or SVG by its ending: a panel for each figure that there is.

    Parameters
    ----------
    curves : sequence of Curve
    baselines : mapping
        Name → figures, drawn as horizontal lines.
    path : Path
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = picture(curves, baselines)
    ending = path.suffix.removeprefix(".") or "png"
    with atomic(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format=ending, dpi=120)


def picture(curves: Sequence[Curve], baselines: Mapping[str, Mapping[str, float]]) -> Figure:
    """Lay the panels out: test figures, the held-out loss, predicted against actual change."""
    from matplotlib.figure import Figure

    names: dict[str, None] = {}
    for curve in curves:
        for row in curve.evaluations:
            names |= dict.fromkeys(metrics(row.figures))
    losses = [curve for curve in curves if math.isfinite(curve.initial_loss)]
    judged = [curve for curve in curves if curve.judged]
    panels = len(names) + bool(losses) + bool(judged) or 1
    across = min(panels, 2 if panels == 4 else 3)
    rows = -(-panels // across)
    figure = Figure(figsize=(5.2 * across, 4.6 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, across, squeeze=False).flat)
    for name in names:
        _test_figure(next(axes), curves, baselines, name)
    if losses:
        _held_out(next(axes), losses)
    if judged:
        _agreement(next(axes), judged)
    if not (names or losses or judged):
        next(axes).text(0.5, 0.5, "no pass yet", ha="center", va="center")
    for spare in axes:
        spare.set_axis_off()
    return figure


def _test_figure(
    axes: Any, curves: Sequence[Curve], baselines: Mapping[str, Mapping[str, float]], name: str
) -> None:
    scale = 100.0 if is_share(name) else 1.0
    seen: list[float] = []
    for i, (title, figures) in enumerate(baselines.items()):
        if name in figures:
            value = scale * figures[name]
            style = {"color": "black"} if title == "dense" else {"color": f"C{i + 2}", "ls": "--"}
            axes.axhline(
                value, lw=1, label=f"{_text(title)} {number(name, figures[name])}", **style
            )
            seen.append(value)
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
        seen += values
    axes.set(
        xlabel="seconds of pruning", ylabel=_text(f"test {label(name)}{' (%)' * is_share(name)}")
    )
    _finish(axes, seen, log=not is_share(name))


def _held_out(axes: Any, curves: Sequence[Curve]) -> None:
    seen: list[float] = []
    for i, curve in enumerate(curves):
        points = held_out_loss(curve.initial_loss, curve.judged)
        seconds, values = zip(*points, strict=True)
        text = f"{_text(curve.name)}: {significant(values[0])} to {significant(values[-1])}"
        axes.plot(seconds, values, color=f"C{i}", lw=2, label=text)
        seen += values
    axes.set(xlabel="seconds of pruning", ylabel="held-out training loss")
    _finish(axes, seen, log=True)


def _agreement(axes: Any, curves: Sequence[Curve]) -> None:
    by_pass = all(curve.by_pass for curve in curves)
    points = [judgement for curve in curves for judgement in curve.judged]
    names = sorted({name for judgement in points for name in judgement.layers}, key=natural)
    if by_pass:
        parts = {"pass": points}
    elif len(names) > COLOURED:
        parts = {counted(len(names), "layer"): points}
    else:
        parts = {f"layer {name}": [p for p in points if p.layers == (name,)] for name in names}
    for i, (part, own) in enumerate(parts.items()):
        for accepted, marker, word in ((True, "o", "kept"), (False, "x", "undone")):
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
        # Changes span orders of magnitude and both signs.
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
    """Choose the scale, write plain numbers at the ticks, and set the legend under the axes."""
    from matplotlib.ticker import LogLocator, NullFormatter

    known = [value for value in values if math.isfinite(value)]
    if log and known and min(known) > 0 and max(known) > _LOG * min(known):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        _plain_ticks(axes.yaxis)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _decades(axis: Any, threshold: float) -> None:
    """Mark 0 and the powers of ten outside the linear part of an axis, where there is room."""
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
    """Text of a legend: never a formula between dollar signs, nor left out for a leading _."""
    return ("\u200a" if name.startswith("_") else "") + visible(name).replace("$", r"\$")
