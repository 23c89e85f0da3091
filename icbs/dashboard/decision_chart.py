"""Charts of the predicted against the actual change of the loss, and of the time spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource

from icbs.dashboard.figures import (
    GREY,
    fit_legend,
    legend_below,
    new_figure,
    symmetric_log,
    tick_changes,
)
from icbs.dashboard.reader import RunReader
from icbs.formatting import counted
from icbs.report.decisions import Decision
from icbs.report.screen import visible
from solvers.comparison.palette import COLOURS

MOST = 4000
"""Largest number of decisions that are drawn for each run; the latest ones."""
PARTS = ("start", "curvature", "building", "solver", "acceptance", "the rest")
_PART_COLOURS = ("#808080", "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CCCCCC")


class DecisionChart:
    """Predicted and actual change of the loss of each decision, summed over its blocks."""

    def __init__(self, readers: Sequence[RunReader], names: Sequence[str]) -> None:
        self._readers = readers
        self.figure = new_figure(
            "Predicted and actual change",
            "predicted, summed over what was judged together",
            "actual (held out)" if len(names) == 1 else "actual (held out; ×: undone)",
            [
                ("pass", "@step"),
                ("layers", "@layers"),
                ("predicted", "@predicted{0.[000000]}"),
                ("actual", "@actual{0.[000000]}"),
            ],
        )
        for axis in (*self.figure.xaxis, *self.figure.yaxis):
            tick_changes(axis)
        span = [symmetric_log(-100.0), 0.0]
        self.figure.line(span, span, color=GREY, legend_label="predicted = actual")
        self.figure.line(span, [0.0, 0.0], color=GREY, line_dash="2 3")
        self._sources, shown = [], []
        for i, name in enumerate(names):
            colour = COLOURS[i % len(COLOURS)]
            for accepted, marker, word in ((True, "circle", "kept"), (False, "x", "undone")):
                source = ColumnDataSource(_columns([]))
                text = name if len(names) > 1 else word
                shown.append(
                    self.figure.scatter(
                        "x", "y", source=source, marker=marker, size=6, alpha=0.6,
                        color=colour if accepted or len(names) > 1 else "#D55E00",
                        legend_label=text,
                    )
                )  # fmt: skip
                self._sources.append((i, accepted, source))
        # The lines do not widen the axes, and have no tooltips.
        for range_ in (self.figure.x_range, self.figure.y_range):
            range_.renderers = shown
        self.figure.hover.renderers = shown
        legend_below(self.figure)
        self._sent = [(0, 0)] * len(readers)

    def update(self) -> None:
        """Show what the readers have read."""
        for i, reader in enumerate(self._readers):
            restarts, count = self._sent[i]
            again = restarts != reader.restarts or count > len(reader.decisions)
            new = reader.decisions[0 if again else count :][-MOST:]
            for index, accepted, source in self._sources:
                if index != i:
                    continue
                own = _columns([d for d in new if d.accepted is accepted])
                if again:
                    source.data = own
                elif own["x"]:
                    source.stream(own, rollover=MOST)
            self._sent[i] = (reader.restarts, len(reader.decisions))
        self.figure.visible = any(source.data["x"] for _, _, source in self._sources)
        fit_legend(self.figure)


def _columns(decided: Sequence[Decision]) -> dict[str, Any]:
    known = [d for d in decided if math.isfinite(d.predicted) and math.isfinite(d.actual)]
    return {
        "x": [symmetric_log(d.predicted) for d in known],
        "y": [symmetric_log(d.actual) for d in known],
        "step": [d.step + 1 for d in known],
        "layers": [_layers(d.layers) for d in known],
        "predicted": [d.predicted for d in known],
        "actual": [d.actual for d in known],
    }


def _layers(names: Sequence[str]) -> str:
    return visible(names[0]) if len(names) == 1 else counted(len(names), "layer")


class CostChart:
    """Wall seconds of the parts of each run, as stacked bars."""

    def __init__(self, readers: Sequence[RunReader], names: Sequence[str]) -> None:
        self._readers = readers
        self._names = names
        self._source = ColumnDataSource(self._columns(names))
        self.figure = new_figure(
            "Time: solver against the rest",
            "seconds",
            "",
            [("part", "$name"), ("seconds", "@$name{0.0}")],
            height=160 + 28 * len(names),
            y_range=list(reversed(names)),
        )
        self.figure.hbar_stack(
            list(PARTS),
            y="run",
            height=0.6,
            source=self._source,
            color=list(_PART_COLOURS),
            legend_label=list(PARTS),
        )
        self.figure.x_range.start = 0
        legend_below(self.figure, 3)

    def _columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        costs = [reader.costs for reader in self._readers]
        parts = {part: [round(own.get(part, 0.0), 3) for own in costs] for part in PARTS}
        return {"run": list(names), **parts}

    def update(self) -> None:
        """Show what the readers have read."""
        self._source.data = self._columns(self._names)
        self.figure.visible = any(any(self._source.data[part]) for part in PARTS)
