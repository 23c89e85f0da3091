"""Bokeh figures, and drawing of steps, bands and points.

The page's script switches renderers by their tags: ``solver:I``, ``target:G`` where a renderer
belongs to one target, ``csv`` where its source can be downloaded, and ``line`` or
``marks``. Columns that begin with an underscore are positions on the page, and not downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from solvers.comparison.extra import importing
from solvers.comparison.report.style import Style

with importing():
    from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, Range1d
    from bokeh.models.annotations import Label, Span
    from bokeh.plotting import figure

if TYPE_CHECKING:
    from pandas import DataFrame

Axis = Literal["linear", "log"]

#: Colour of axes and helper lines, visible on light and dark; the page's script refines it.
GREY = "#808080"
#: Largest numbers of points and markers of a curve.
MOST_POINTS, MOST_MARKS = 300, 9
#: Size of a marker in pixels.
MARK_SIZE = 8
#: Gaps at or below are drawn here.
FLOOR = 1e-7


@dataclass(frozen=True)
class Chart:
    """A chart of the page."""

    key: str
    title: str
    definition: str
    figure: Any = None
    """None if the table has no data for it; ``definition`` then states the reason."""
    by_target: bool = False
    """Whether it shows the target that is chosen on the page."""


def new_figure(
    x: str,
    y: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_axis: Axis = "log",
    y_axis: Axis = "log",
    tooltips: Sequence[tuple[str, str]] = (),
    series: str = "solver",
) -> Any:
    """Return an empty figure of the page's width; dragging scrolls unless a tool is selected.

    Tooltips begin with the name of the renderer, under the heading ``series``.
    """
    plot = figure(
        x_axis_type=x_axis,
        y_axis_type=y_axis,
        x_axis_label=x,
        y_axis_label=y,
        x_range=Range1d(start=x_range[0], end=x_range[1]),
        y_range=Range1d(start=y_range[0], end=y_range[1]),
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag=None,
        active_scroll=None,
        toolbar_location="above",
        sizing_mode="stretch_width",
        height=360,
        min_width=240,
        min_border_left=4,
        min_border_right=12,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
    )
    plot.toolbar.logo = None
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = GREY
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = plot.axis.major_label_text_font_size = "12px"
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = GREY
    plot.grid.grid_line_color = GREY
    plot.grid.grid_line_alpha = 0.25
    if tooltips:
        # Only renderers added in draw_points show tooltips, not bands and helper lines.
        plot.add_tools(HoverTool(renderers=[], tooltips=[(series, "$name"), *tooltips]))
    return plot


def spelled_target(target: float) -> str:
    """Return a target as the page shows it, such as 1e-4."""
    return f"{target:.0e}".replace("e-0", "e-")


def tag(renderer: Any, style: Style, *more: str, target: float | None = None) -> Any:
    """Name a renderer after its solver, and tag it; glyph methods would tag the glyph."""
    renderer.name = style.name
    of = [] if target is None else [f"target:{spelled_target(target)}"]
    renderer.tags = [f"solver:{style.index}", *more, *of]
    return renderer


def draw_step(
    plot: Any, style: Style, columns: dict[str, Any], x: str, y: str, target: float | None = None
) -> None:
    """Draw a step function, right-continuous, with a few markers on it."""
    frame = {name: np.asarray(values) for name, values in columns.items()}
    keep = thin(frame[x], MOST_POINTS)
    frame = {name: values[keep] for name, values in frame.items()}
    drawn = plot.step(
        x=x,
        y=y,
        source=ColumnDataSource(frame),
        mode="after",
        line_color=style.colour,
        line_dash=style.dashes,
        line_width=2,
    )
    tag(drawn, style, "csv", "line", target=target)
    marks = thin(frame[x], MOST_MARKS)
    _points(plot, style, {name: values[marks] for name, values in frame.items()}, x, y, target)


def draw_band(
    plot: Any, style: Style, columns: dict[str, Any], x: str, low: str, high: str
) -> None:
    """Fill between two curves."""
    drawn = plot.varea(
        x=x,
        y1=low,
        y2=high,
        source=ColumnDataSource(columns),
        fill_color=style.colour,
        fill_alpha=0.13,
    )
    tag(drawn, style)


def draw_points(
    plot: Any,
    style: Style,
    columns: dict[str, Any],
    target: float | None = None,
    interval: bool = False,
) -> None:
    """Draw points at ``_x, _y``, hollow where ``_fill`` is 0, with bars ``_low`` to ``_high``."""
    source = ColumnDataSource(columns)
    if interval:
        bars = plot.segment(
            x0="_x",
            y0="_low",
            x1="_x",
            y1="_high",
            source=source,
            line_color=style.colour,
            line_alpha=0.45,
        )
        tag(bars, style, target=target)
    _points(plot, style, columns, "_x", "_y", target, "csv", fill="_fill")


def _points(
    plot: Any,
    style: Style,
    columns: dict[str, Any],
    x: str,
    y: str,
    target: float | None,
    *tags: str,
    fill: str | float = 0.75,
) -> None:
    drawn = plot.scatter(
        x=x,
        y=y,
        source=ColumnDataSource(columns),
        marker=style.marker,
        size=MARK_SIZE,
        line_color=style.colour,
        fill_color=style.colour,
        fill_alpha=fill,
    )
    tag(drawn, style, "marks", *tags, target=target)
    for tool in plot.tools:
        if isinstance(tool, HoverTool):
            tool.renderers = [*tool.renderers, drawn]


def draw_line(plot: Any, style: Style, x: Any, y: Any, target: float | None = None) -> None:
    """Draw a thin line through medians; it breaks where there is none."""
    drawn = plot.line(
        x="_x",
        y="_y",
        source=ColumnDataSource({"_x": np.asarray(x), "_y": np.asarray(y)}),
        line_color=style.colour,
        line_dash=style.dashes,
        line_width=1.5,
        line_alpha=0.8,
    )
    tag(drawn, style, target=target)


def mark_level(plot: Any, level: float, text: str) -> None:
    """Draw a horizontal line with a label at its left end."""
    plot.add_layout(
        Span(location=level, dimension="width", line_color=GREY, line_dash=[3, 3], line_width=1)
    )
    plot.add_layout(
        Label(
            x=4,
            x_units="screen",
            y=level,
            y_offset=2,
            text=text,
            text_font_size="11px",
            text_color=GREY,
        )
    )


def tick_sizes(plot: Any, sizes: Sequence[int]) -> None:
    """Put ticks of the x axis at powers of two, at most seven."""
    low, high = int(np.log2(min(sizes))), int(np.ceil(np.log2(max(sizes))))
    step = -(-(high - low + 1) // 7)
    ticks = [2**e for e in range(low, high + 1, step)]
    plot.xaxis.ticker = FixedTicker(ticks=ticks)
    plot.xaxis.major_label_overrides = {tick: str(tick) for tick in ticks}


def dodged(sizes: Any, index: int, count: int) -> npt.NDArray[np.float64]:
    """Return x positions shifted slightly from n, so that solvers' points do not overlap."""
    shift = (index - (count - 1) / 2) / max(count, 1)
    return np.asarray(sizes, dtype=float) * 2.0 ** (0.5 * shift)


def size_range(sizes: Sequence[int]) -> tuple[float, float]:
    """Return the range of an axis of n, with room for shifted points."""
    return min(sizes) / 1.4, max(sizes) * 1.4


def thin(seconds: Any, most: int) -> list[int]:
    """Return positions of at most ``most`` points of a curve, evenly spaced in log time.

    Parameters
    ----------
    seconds : array_like of float, shape (m,)
        Ascending.
    most : int
        At least 2.

    Returns
    -------
    list of int
        The first and last point, and of each interval of time the last.
    """
    seconds = np.asarray(seconds, dtype=float)
    if len(seconds) <= most:
        return list(range(len(seconds)))
    low = max(float(seconds[0]), 1e-6)
    edges = np.geomspace(low, max(float(seconds[-1]), low * 1.001), most)
    last = np.searchsorted(seconds, edges[1:-1], side="right") - 1
    return sorted({0, len(seconds) - 1, *last[last >= 0].tolist()})


def columns_of(frame: DataFrame, **more: Any) -> dict[str, Any]:
    """Return the columns of a frame for a source."""
    return {str(name): frame[name].to_numpy() for name in frame.columns} | more
