"""Charts over time: a curve per run, with levels for comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bokeh.models import ColumnDataSource

from icbs.dashboard.figures import fit_legend, legend_below, new_figure, percent
from icbs.dashboard.reader import RunReader
from icbs.formatting import is_share, label
from solvers.comparison.palette import COLOURS, DASHES

Points = Sequence[tuple[float, float]]
_SECOND = "6 4"
"""Dashes of a second curve, or of a level, of a run."""


@dataclass
class _Curve:
    """A curve of one run, and the number of its points that the page has."""

    reader: RunReader
    points: Callable[[RunReader], Points]
    source: ColumnDataSource
    restarts: int = 0
    last: tuple[float, float] | None = None

    def update(self) -> None:
        """Send new points, or all if the run was resumed and replaced some."""
        points, shown = list(self.points(self.reader)), len(self.source.data["x"])
        same = self.restarts == self.reader.restarts and (
            shown == 0 or (shown <= len(points) and points[shown - 1] == self.last)
        )
        new = points[shown:] if same else points
        data: dict[str, Any] = {"x": [x for x, _ in new], "y": [y for _, y in new]}
        if not same:
            self.source.data = data
        elif new:
            self.source.stream(data)
        self.restarts, self.last = self.reader.restarts, points[-1] if points else None


@dataclass
class _Level:
    """A horizontal line."""

    value: Callable[[], float]
    source: ColumnDataSource

    def update(self) -> None:
        """Set the value; the line is absent while it is not known."""
        value = self.value()
        data = {"y": [value] if math.isfinite(value) else []}
        if self.source.data != data:
            self.source.data = data


@dataclass
class TimeChart:
    """Curves of several runs against seconds of pruning."""

    names: Sequence[str]
    """Name of each run."""
    figure: Any
    _parts: list[_Curve | _Level] = field(default_factory=list)

    def add_curve(
        self,
        index: int,
        reader: RunReader,
        points: Callable[[RunReader], Points],
        text: str = "",
        *,
        second: bool = False,
    ) -> None:
        """Draw a curve of the run with this index.

        Parameters
        ----------
        index : int
        reader : RunReader
        points : callable
        text : str
            Entry of the legend if there is one run; of several, each has one entry.
        second : bool
            Whether it is a second curve of the run: dashed and without marks.
        """
        source = ColumnDataSource({"x": [], "y": []})
        name = self._named(index, text)
        other = second and len(self.names) == 1
        colour = COLOURS[(index + other) % len(COLOURS)]
        dash = "solid"
        if second:
            dash = _SECOND
        elif index >= len(COLOURS):
            dash = " ".join(map(str, DASHES[index // len(COLOURS) % len(DASHES)])) or "solid"
        style = {"color": colour, "line_width": 1.5 if second else 2, "line_dash": dash}
        self.figure.line("x", "y", source=source, legend_label=name, name=name, **style)
        if not second:
            self.figure.scatter("x", "y", source=source, size=4, color=colour, legend_label=name)
        self._parts.append(_Curve(reader, points, source))

    def add_level(
        self, index: int | None, value: Callable[[], float], text: str, dash: str = _SECOND
    ) -> None:
        """Draw a horizontal line, of one run or, in black, of all."""
        source = ColumnDataSource({"y": []})
        colour = "black" if index is None else COLOURS[index % len(COLOURS)]
        dash = "solid" if index is None else dash
        name = text if index is None else self._named(index, text)
        style = {"line_color": colour, "line_dash": dash}
        self.figure.hspan(y="y", source=source, legend_label=name, **style)
        self._parts.append(_Level(value, source))

    def _named(self, index: int, text: str) -> str:
        return self.names[index] if len(self.names) > 1 or not text else text

    def update(self) -> None:
        """Show what the readers have read."""
        for part in self._parts:
            part.update()
        curves = [part for part in self._parts if isinstance(part, _Curve)]
        self.figure.visible = any(curve.source.data["x"] for curve in curves)
        fit_legend(self.figure)


def _time_chart(
    names: Sequence[str], title: str, y: str, form: str = "0.0000", *, dashed: str = ""
) -> TimeChart:
    """Return an empty chart; of several runs, the label of the axis explains dashed lines."""
    x = "seconds of pruning"
    tips = [("seconds", "@x{0.0}"), (y, f"@y{{{form}}}")]
    if len(names) > 1:
        tips.insert(0, ("run", "$name"))
        x += f"; dashed: {dashed}" if dashed else ""
    return TimeChart(names, new_figure(title, x, y, tips))


def loss_chart(readers: Sequence[RunReader], names: Sequence[str]) -> TimeChart:
    """Chart of the held-out loss, with that of the initial masks."""
    chart = _time_chart(names, "Held-out loss", "loss", dashed="start")
    for i, reader in enumerate(readers):
        chart.add_curve(i, reader, lambda reader: reader.losses)
        chart.add_level(i, partial(getattr, reader, "initial_loss"), f"start ({reader.start})")
    legend_below(chart.figure)
    return chart


def metric_chart(readers: Sequence[RunReader], names: Sequence[str], metric: str) -> TimeChart:
    """Chart of a test figure, with those of the initial masks and the dense model."""
    form = "0.00%" if is_share(metric) else "0.0000"
    levels = {reader.dense[metric] for reader in readers if metric in reader.dense}
    dashed = "start, dotted: dense" if len(levels) > 1 else "start"
    chart = _time_chart(names, f"Test {label(metric)}", label(metric), form, dashed=dashed)

    def points(reader: RunReader) -> Points:
        return [(e.seconds, e.figures[metric]) for e in reader.evaluations if metric in e.figures]

    def dense(reader: RunReader) -> float:
        return reader.dense.get(metric, math.nan) if points(reader) else math.nan

    def start(reader: RunReader) -> float:
        first = reader.evaluations[:1]
        return first[0].figures.get(metric, math.nan) if first and first[0].step == 0 else math.nan

    for i, reader in enumerate(readers):
        chart.add_curve(i, reader, points)
        chart.add_level(i, partial(start, reader), f"start ({reader.start})")
        if len(levels) > 1:
            chart.add_level(i, partial(dense, reader), "dense", "2 3")
    if len(levels) == 1:
        chart.add_level(None, lambda: next(iter(levels)), "dense")
    if is_share(metric):
        percent(chart.figure.yaxis)
    legend_below(chart.figure)
    return chart


def kept_chart(readers: Sequence[RunReader], names: Sequence[str], last: int = 10) -> TimeChart:
    """Chart of the share of blocks that were kept, of all and of the last passes."""
    chart = _time_chart(names, "Share of blocks kept", "share kept", "0.0%", dashed="all passes")

    def overall(reader: RunReader) -> Points:
        return [(r.seconds, r.accepted / r.blocks) for r in reader.progress if r.blocks]

    def recent(reader: RunReader) -> Points:
        rows = reader.progress
        pairs = ((rows[max(0, i - last)], row) for i, row in enumerate(rows))
        return [
            (new.seconds, (new.accepted - old.accepted) / (new.blocks - old.blocks))
            for old, new in pairs
            if new.blocks > old.blocks
        ]

    for i, reader in enumerate(readers):
        chart.add_curve(i, reader, recent, f"last {last} passes")
        chart.add_curve(i, reader, overall, "all passes", second=True)
    percent(chart.figure.yaxis)
    legend_below(chart.figure)
    return chart


def memory_chart(readers: Sequence[RunReader], names: Sequence[str]) -> TimeChart:
    """Chart of the memory of the process and, if used, of the CUDA device."""
    on_device = any(row.device_memory for reader in readers for row in reader.progress)
    dashed = "on the device" if on_device else ""
    chart = _time_chart(names, "Memory", "GB", "0.00", dashed=dashed)
    for i, reader in enumerate(readers):
        chart.add_curve(i, reader, lambda r: [(p.seconds, p.memory / 1e9) for p in r.progress])
        if any(row.device_memory for row in reader.progress):
            chart.add_curve(
                i,
                reader,
                lambda r: [(p.seconds, p.device_memory / 1e9) for p in r.progress],
                "on the device",
                second=True,
            )
    chart.figure.y_range.start = 0
    legend_below(chart.figure)
    return chart
