"""The dashboard as one Bokeh layout, for a page that is served and for a file."""

from __future__ import annotations

import time

from bokeh.models import Column

from icbs.dashboard.curves import TimeChart, kept_chart, loss_chart, memory_chart, metric_chart
from icbs.dashboard.decision_chart import CostChart, DecisionChart
from icbs.dashboard.layer_map import LayerMap
from icbs.dashboard.layout import div, grid
from icbs.dashboard.summary import (
    layers_html,
    report_html,
    run_names,
    settings_html,
    summary_html,
)
from icbs.dashboard.watched import WatchedRuns
from icbs.formatting import metrics


class Board:
    """Tables and charts of runs.

    Parameters
    ----------
    runs : WatchedRuns
    live : bool
        Whether the page is updated while it is open.
    """

    def __init__(self, runs: WatchedRuns, *, live: bool) -> None:
        self.runs, self._live = runs, live
        self.root = Column(sizing_mode="stretch_width")
        self._build()

    def _build(self) -> None:
        """Create all charts from the current runs, names of figures and layers."""
        self._readers = readers = list(self.runs.readers)
        if not readers:
            self.root.children = [div("<p>No run has started yet; it will appear here.</p>")]
            return
        self._names = names = run_names(readers)
        self._metrics = self._metric_names()
        self._versions: tuple[int, ...] | None = None
        self._summary = div("")
        self._charts: list[TimeChart | DecisionChart | CostChart] = [
            loss_chart(readers, names),
            *(metric_chart(readers, names, metric) for metric in self._metrics),
            DecisionChart(readers, names),
            kept_chart(readers, names),
            CostChart(readers, names),
            memory_chart(readers, names),
        ]
        several = len(names) > 1
        self._maps = [
            LayerMap(reader, name if several else "")
            for reader, name in zip(readers, names, strict=True)
        ]
        details = [div(settings_html(readers, names))]
        if not self._live:
            details[:0] = [div(report_html(r, n)) for r, n in zip(readers, names, strict=True)]
            details += [div(layers_html(r, n)) for r, n in zip(readers, names, strict=True)]
        self.root.children = [
            self._summary,
            grid([chart.figure for chart in self._charts], "30rem"),
            div("<h2>Layers</h2><p class='note'>Tooltips have full names.</p>"),
            *(grid(layers.figures, "24rem") for layers in self._maps if layers.names),
            *details,
        ]
        self.update()

    def _metric_names(self) -> list[str]:
        found: dict[str, None] = {}
        for reader in self._readers:
            for row in reader.evaluations[-1:]:
                found |= dict.fromkeys(metrics(row.figures))
        return list(found)

    def update(self) -> None:
        """Read what is new, and show it."""
        self.runs.look()
        if len(self.runs.readers) > len(self._readers):
            self._build()
            return
        if not self._readers:
            return
        versions = tuple(reader.refresh() for reader in self._readers)
        note = f"updated {time.strftime('%H:%M:%S')}" if self._live else ""
        text = summary_html(self._readers, self._names, note)
        if text != self._summary.text:
            self._summary.text = text
        if versions == self._versions:
            return
        self._versions = versions
        if self._metric_names() != self._metrics or not all(m.update() for m in self._maps):
            self._build()
            return
        for chart in self._charts:
            chart.update()
