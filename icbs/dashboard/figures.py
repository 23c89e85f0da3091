"""Empty Bokeh figures in the style of the dashboard, and tick marks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import FixedTicker, HoverTool, NumeralTickFormatter
from bokeh.plotting import figure

GREY = "#808080"
_ROW = 20
"""Height of an entry of a legend, in pixels."""
_LONG = 22
"""Characters of an entry beyond which there is one in a row, as on a phone two have no room."""
SMALLEST = 1e-5
"""Changes of the loss below are drawn on a linear scale, larger ones on a logarithmic one."""


def new_figure(
    title: str,
    x: str,
    y: str,
    tooltips: Sequence[tuple[str, str]] = (),
    height: int = 320,
    **options: Any,
) -> Any:
    """Return an empty figure as wide as its place on the page."""
    plot: Any = figure(
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag=None,
        active_scroll=None,
        toolbar_location="right",
        sizing_mode="stretch_width",
        height=height,
        min_width=240,
        **options,
    )
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    plot.title.text_font_size = "15px"
    if tooltips:
        plot.add_tools(HoverTool(tooltips=list(tooltips)))
    return plot


def legend_below(plot: Any, columns: int = 2) -> None:
    """Move a figure's legend below it; see :func:`fit_legend`."""
    names = [item.label["value"] for legend in plot.legend for item in legend.items]
    if max(map(len, names), default=0) > _LONG:
        columns = 1
    for legend in list(plot.legend):
        plot.add_layout(legend, "below")
        legend.ncols = columns
        legend.orientation = "horizontal"
        legend.location = "center"
        legend.border_line_color = None
        legend.padding, legend.margin, legend.spacing = 2, 0, 8
        legend.label_text_font_size = "12px"
        # A grid has the same space between rows, so that they are lower than their place.
        legend.glyph_width, legend.label_height, legend.glyph_height = 28, _ROW - 8, _ROW - 8
        legend.click_policy = "hide"
    plot.tags = [plot.height]
    fit_legend(plot)


def fit_legend(plot: Any) -> None:
    """Hide the entries of curves without points, and make room for the others below the chart."""
    rows = 0
    for legend in plot.legend:
        shown = 0
        for item in legend.items:
            visible = any(map(_has_points, item.renderers))
            shown += visible
            if item.visible != visible:
                item.visible = visible
        rows += -(-shown // legend.ncols)
    height = plot.tags[0] + _ROW * max(0, rows - 1)  # the height without has room for one row
    if plot.height != height:
        plot.height = height


def _has_points(renderer: Any) -> bool:
    source = getattr(renderer, "data_source", None)
    return source is None or any(len(column) for column in source.data.values())


def symmetric_log(value: float) -> float:
    """Return the position of a change on an axis that is logarithmic in both directions."""
    return math.copysign(math.log10(1.0 + abs(value) / SMALLEST), value)


def tick_changes(axis: Any) -> None:
    """Label an axis of :func:`symmetric_log` with changes."""
    values = [0.0] + [sign * 10.0**k for k in range(-4, 4) for sign in (-1, 1)]
    axis.ticker = FixedTicker(ticks=[symmetric_log(value) for value in values])
    axis.major_label_overrides = {symmetric_log(v): f"{v:g}".replace("-", "−") for v in values}


def label_ticks(axis: Any, labels: Mapping[int, str]) -> None:
    """Label positions of an axis with texts."""
    axis.ticker = FixedTicker(ticks=list(labels))
    axis.major_label_overrides = dict(labels)


def percent(axis: Any) -> None:
    """Format the ticks of an axis as percentages."""
    axis.formatter = NumeralTickFormatter(format="0.[0]%")


def wrapped(name: str, most: int) -> str:
    """Return a name in lines of at most ``most`` characters, which end at its punctuation."""
    lines = [""]
    for part in re.findall(rf"[^._/-]{{1,{most - 1}}}[._/-]?|[._/-]", name):
        if len(lines[-1]) + len(part) > most:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
