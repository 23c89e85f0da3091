"""The dashboard of a comparison of solvers while it runs, as one Bokeh layout."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from bokeh.models import Column
from bokeh.models.annotations import Legend, LegendItem

from icbs.dashboard.figures import fit_legend, legend_below
from icbs.dashboard.layout import div, grid, render
from icbs.dashboard.standing import Standing
from icbs.formatting import clock, counted

if TYPE_CHECKING:
    from solvers.comparison.report.figures import Chart


class ComparisonBoard:
    """Progress, table of solvers, and charts of a comparison.

    Parameters
    ----------
    standing : Standing
        Shared by all pages of a server.
    """

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self._progress, self._table = div(""), div("")
        self._charts: list[_LiveChart] = []
        self._shown = -1
        self.root = Column(children=[self._progress, self._table], sizing_mode="stretch_width")
        self.update()

    def update(self) -> None:
        """Read what is new, and show it."""
        standing = self.standing
        standing.reader.refresh()
        version = standing.update()
        self._progress.text = self._progress_html()
        if version != self._shown or not self._table.text:
            self._shown = version
            self._table.text = self._table_html()
            if self._charts:
                for live, chart in zip(self._charts, standing.charts, strict=True):
                    live.update(chart)
            elif standing.charts:  # the first runs have ended
                self._charts = [_LiveChart(chart) for chart in standing.draw()]
                roots = [chart.root for chart in self._charts]
                self.root.children = [self._progress, self._table, grid(roots, "30rem")]

    def _progress_html(self) -> str:
        reader = self.standing.reader
        planned, done = reader.planned, len(reader.statuses)
        counts = Counter(reader.statuses.values())
        facts = {"state": reader.state, "runs": f"{done:,} of {len(planned.runs):,}"}
        if reader.state == "running":
            facts["time left"] = f"about {clock(reader.remaining)}"
        if failed := counts["failed"] + counts["timeout"]:
            facts["failures"] = counted(failed, "run")
        facts["settings"] = (
            f"{counted(len(planned.problems), 'problem')}, "
            f"{counted(len(planned.solvers), 'solver')}, "
            f"{counted(len({run.seed for run in planned.runs.values()}), 'seed')}, "
            f"{planned.time_limit:g} s a run, {planned.jobs} in parallel"
        )
        alerts = [reader.problem] if reader.problem else []
        if reader.deleted:
            alerts = [
                f"the folder {reader.path} was deleted while it was watched; the figures are "
                "those that were read before"
            ]
        return render(
            "comparison.html.j2",
            done=done,
            total=len(planned.runs),
            facts=facts,
            alerts=alerts,
            note=f"updated {time.strftime('%H:%M:%S')}" + self._next(),
        )

    def _next(self) -> str:
        wait = self.standing.wait
        return f"; the standing in about {wait:.0f} s" if wait >= 1 else ""

    def _table_html(self) -> str:
        from solvers.comparison.report.style import styles

        standing = self.standing
        looks = {style.name: style for style in styles(standing.solvers)}
        return render(
            "standing.html.j2",
            heads=standing.headings,
            rows=[(looks[cells[0]], cells) for cells in standing.cells()],
            runs=counted(standing.runs, "run"),
            finished=standing.reader.finished and standing.runs == len(standing.reader.statuses),
        )


class _LiveChart:
    """A chart of the report, whose data are replaced as runs end."""

    def __init__(self, chart: Chart) -> None:
        self._figure = _with_legend(chart.figure)
        self._spans = _spans(chart.figure)
        text = render("chart.html.j2", title=chart.title, definition=chart.definition)
        self.root = Column(children=[div(text), self._figure], sizing_mode="stretch_width")

    def update(self, chart: Chart) -> None:
        """Show new data; zoomed axes, and solvers that are switched off, stay as they are."""
        pairs = zip(self._figure.renderers, chart.figure.renderers, strict=True)
        for shown, new in pairs:  # the solvers, and so the renderers, are always the same
            shown.data_source.data = dict(new.data_source.data)
        fit_legend(self._figure)
        spans = _spans(chart.figure)
        for axis, before, now in zip(_axes(self._figure), self._spans, spans, strict=True):
            if now != before and (axis.start, axis.end) == before:
                axis.update(start=now[0], end=now[1], reset_start=now[0], reset_end=now[1])
        self._spans = spans


def _spans(plot: Any) -> list[tuple[float, float]]:
    return [(axis.start, axis.end) for axis in _axes(plot)]


def _axes(plot: Any) -> tuple[Any, Any]:
    return plot.x_range, plot.y_range


def _with_legend(plot: Any) -> Any:
    """Add a legend with the name of each solver below a figure of the report."""
    of: dict[str, list[Any]] = {}
    for renderer in plot.renderers:
        of.setdefault(renderer.name, []).append(renderer)
    items = [LegendItem(label={"value": name}, renderers=drawn) for name, drawn in of.items()]
    plot.add_layout(Legend(items=items))
    legend_below(plot)
    plot.legend.spacing = 6
    plot.toolbar_location, plot.toolbar.autohide = "right", True
    return plot
