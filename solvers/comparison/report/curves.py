"""Charts over time or over a ratio: ECDF, anytime gap, performance profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from solvers.comparison.extra import importing
from solvers.comparison.measures import (
    ECDF_TARGETS,
    TARGETS,
    Results,
    anytime_gap,
    costs_of,
    ecdf,
    expected_running_time,
    performance_profile,
    time_to_target,
)
from solvers.comparison.report.figures import (
    FLOOR,
    MARK_SIZE,
    Chart,
    columns_of,
    draw_band,
    draw_step,
    new_figure,
    tag,
)
from solvers.comparison.report.style import Style, styles

with importing():
    from bokeh.models import ColumnDataSource, FixedTicker

if TYPE_CHECKING:
    from pandas import DataFrame

#: Target that the page shows first.
SHOWN_TARGET = 1e-4


@dataclass(frozen=True)
class Scene:
    """Data of all charts."""

    results: Results
    solvers: Sequence[str] = ()
    """Labels of the solvers that are drawn, with or without runs; those of the results if
    omitted."""

    @cached_property
    def styles(self) -> list[Style]:
        """The look of each solver."""
        return styles(list(self.solvers) or self.results.solvers)

    @cached_property
    def times(self) -> DataFrame:
        """Times to the targets of the tables."""
        return time_to_target(self.results, TARGETS)

    @cached_property
    def sizes(self) -> list[int]:
        """The n of the problems, ascending, each once."""
        return sorted({int(n) for n in self.results.problems["n"]})

    @cached_property
    def limit(self) -> float:
        """The longest time limit in seconds."""
        return float(self.results.runs["time_limit"].max())

    @cached_property
    def span(self) -> tuple[float, float]:
        """First and last second of the charts over time."""
        seconds = self.results.steps["seconds"]
        last = max(self.limit, float(seconds.max())) if len(seconds) else self.limit
        first = float(seconds[seconds > 0].min()) if (seconds > 0).any() else last / 100
        return min(max(first, 1e-4), last / 10), last * 1.05

    @cached_property
    def grid(self) -> npt.NDArray[np.float64]:
        """Times between, even in the logarithm."""
        return np.geomspace(*self.span, 120)

    @cached_property
    def costs(self) -> dict[float, DataFrame]:
        """Expected running times, a matrix of problems and solvers for each target."""
        ert = expected_running_time(self.times)
        return {target: costs_of(ert, "ert", target) for target in TARGETS}


def ecdf_chart(scene: Scene) -> Chart:
    """Draw the share of (problem, target, seed) reached within t."""
    curve = ecdf(time_to_target(scene.results, ECDF_TARGETS))
    first, last = scene.span
    plot = new_figure(
        "seconds",
        "share of (problem, target, seed)",
        (first, last),
        (0, 1.02),
        y_axis="linear",
        tooltips=[("seconds", "@seconds{0.000[0]}"), ("share", "@share{0.0%}")],
    )
    for style in scene.styles:
        mine = curve[curve["solver"] == style.name]
        seconds = np.concatenate([[first], np.maximum(mine["seconds"], first), [last]])
        share = np.concatenate([[0.0], mine["share"]])
        share = np.append(share, share[-1])
        if style.name not in scene.results.solvers:  # without a finished run
            seconds, share = seconds[:0], share[:0]
        draw_step(plot, style, {"seconds": seconds, "share": share}, "seconds", "share")
    return Chart(
        "ecdf",
        "Share of targets reached",
        f"Share of (problem, target, seed) reached within t seconds, over {len(ECDF_TARGETS)} "
        "target gaps from 1e-1 to 1e-6, five per decade; failed runs reach none.",
        plot,
    )


def anytime_chart(scene: Scene) -> Chart:
    """Draw the median gap over time with its quartiles."""
    curve = anytime_gap(scene.results, scene.grid.tolist())
    drawn = {name: np.maximum(curve[name], FLOOR) for name in ("q25", "median", "q75")}
    plot = new_figure(
        "seconds",
        "gap g(t)",
        scene.span,
        (FLOOR / 1.5, 1.5),
        tooltips=[("seconds", "@seconds{0.000[0]}"), ("median gap", "@median{0.0e}")],
    )
    plot.yaxis.major_label_overrides = {FLOOR: "≤ 1e-7"}
    curve = curve.assign(_q25=drawn["q25"], _median=drawn["median"], _q75=drawn["q75"])
    for style in scene.styles:
        mine = columns_of(curve[curve["solver"] == style.name].drop(columns="solver"))
        draw_band(plot, style, mine, "seconds", "_q25", "_q75")
        draw_step(plot, style, mine, "seconds", "_median")
    return Chart(
        "anytime",
        "Gap over time",
        "Median and quartiles over (problem, seed) of the gap g(t) = (E(t) − E*) / (E₀ − E*), "
        "with E* the best energy known and E₀ that of the start; 1 before the first feasible "
        "state, and at most 1.",
        plot,
    )


def profile_chart(scene: Scene) -> Chart:
    """Draw the performance profile; the page computes it again for the solvers shown."""
    profile = performance_profile(scene.costs[SHOWN_TARGET])
    end = max(float(profile["tau"].max()) * 1.2, 2.0)
    plot = new_figure(
        "τ: time over that of the fastest solver shown",
        "share of problems ρ(τ)",
        (1, end),
        (0, 1.02),
        y_axis="linear",
        tooltips=[("τ", "@tau{0.[00]}"), ("share", "@share{0.0%}")],
    )
    plot.xaxis.ticker = FixedTicker(ticks=[1, 10, 100, 1000])
    for style in scene.styles:
        mine = profile[profile["solver"] == style.name]
        # Constant until the end of the axis.
        tau, share = np.append(mine["tau"], end), np.append(mine["share"], mine["share"].tail(1))
        draw_step(plot, style, {"tau": tau, "share": share}, "tau", "share")
    return Chart(
        "profile",
        "Performance profile (Dolan–Moré)",
        "Share of problems on which a solver's expected running time to the target (time of all "
        "its runs over the number that reached it) is at most τ times that of the fastest of the "
        "solvers shown; it is computed again for each choice of solvers.",
        plot,
        by_target=True,
    )


def problem_chart(scene: Scene) -> Chart:
    """Return the figure that the page fills with the curves of one problem."""
    plot = new_figure("seconds", "gap g(t)", scene.span, (FLOOR / 1.5, 1.5))
    plot.yaxis.major_label_overrides = {FLOOR: "≤ 1e-7"}
    for style in scene.styles:
        lines = plot.multi_line(
            xs="xs",
            ys="ys",
            source=ColumnDataSource({"xs": [], "ys": []}),
            line_color=style.colour,
            line_dash=style.dashes,
            line_width=1.8,
            line_alpha=0.85,
        )
        marks = plot.scatter(
            x="x",
            y="y",
            source=ColumnDataSource({"x": [], "y": []}),
            marker=style.marker,
            size=MARK_SIZE,
            line_color=style.colour,
            fill_color=style.colour,
            fill_alpha=0.75,
        )
        tag(lines, style, "line")
        tag(marks, style, "marks")
    return Chart(
        "problem",
        "Gap over time",
        "One curve per seed, from its first feasible state to its last improvement (marked).",
        plot,
    )
