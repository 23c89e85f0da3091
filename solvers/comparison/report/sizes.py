"""Charts against n: times to target, primal integrals, proofs, feasible samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.comparison.measures import (
    TARGETS,
    feasibility,
    lowest_integral,
    proofs,
    time_to_solution,
)
from solvers.comparison.report.curves import Scene
from solvers.comparison.report.figures import (
    FLOOR,
    GREY,
    Chart,
    columns_of,
    dodged,
    draw_line,
    draw_points,
    mark_level,
    new_figure,
    size_range,
    tick_sizes,
)
from solvers.comparison.report.style import Style


def _figure(scene: Scene, y: str, y_range: tuple[float, float], tooltips: Any, **more: Any) -> Any:
    plot = new_figure("n", y, size_range(scene.sizes), y_range, tooltips=tooltips, **more)
    tick_sizes(plot, scene.sizes)
    return plot


def _draw(
    scene: Scene,
    plot: Any,
    frame: Any,
    value: str,
    *,
    low: float,
    high: float,
    bars: tuple[str, str] | None = None,
) -> None:
    """Draw a value of each solver, and of each target if there are several, against n.

    Infinite values are hollow, at ``high``.
    """
    by_target = "target" in frame.columns
    for style in scene.styles:
        own = frame[frame["solver"] == style.name].drop(columns="solver")
        for target in TARGETS if by_target else (None,):
            mine = own[own["target"] == target].drop(columns="target") if by_target else own
            if len(mine):
                _draw_one(scene, plot, style, mine, value, low, high, target, bars)


def _draw_one(
    scene: Scene,
    plot: Any,
    style: Style,
    frame: Any,
    value: str,
    low: float,
    high: float,
    target: float | None,
    bars: tuple[str, str] | None,
) -> None:
    x = dodged(frame["n"], style.index, len(scene.styles))
    more: dict[str, Any] = {
        "_x": x,
        "_y": np.clip(frame[value], low, high),
        "_fill": np.where(np.isfinite(frame[value]), 0.75, 0.0),
    }
    if bars is not None:
        more |= {"_low": np.clip(frame[bars[0]], low, high)}
        more |= {"_high": np.clip(frame[bars[1]], low, high)}
    draw_points(plot, style, columns_of(frame, **more), target, interval=bars is not None)
    median = frame.groupby("n")[value].median()
    middle = dodged(median.index, style.index, len(scene.styles))
    y = median.where(np.isfinite(median)).clip(low, high)
    draw_line(plot, style, middle, y, target)


def time_to_target_chart(scene: Scene) -> Chart:
    """Draw the median time to the target of each problem against n."""
    first, last = scene.span
    top = last * 2
    plot = _figure(
        scene,
        "seconds to target",
        (first / 1.3, top * 1.6),
        [("problem", "@problem"), ("n", "@n"), ("seconds", "@seconds{0.000[0]}")],
    )
    mark_level(plot, top, "not reached")
    times = scene.times.groupby(["problem", "n", "solver", "target"], as_index=False)["seconds"]
    _draw(scene, plot, times.median(), "seconds", low=first, high=top)
    return Chart(
        "time-to-target",
        "Time to target",
        "Seconds until the gap is at most the target: for each problem the median over seeds, "
        "with a line through the medians of each n; hollow where half of the runs or more did "
        "not reach it.",
        plot,
        by_target=True,
    )


def time_to_solution_chart(scene: Scene) -> Chart:
    """Draw TTS99 with the interval of p."""
    tts = time_to_solution(scene.times)
    first = scene.span[0]
    finite = tts.loc[np.isfinite(tts["tts"]), "tts"]
    top = max(float(finite.max()) if len(finite) else 0.0, 10 * scene.limit) * 2
    plot = _figure(
        scene,
        "TTS99 in seconds",
        (first / 1.3, top * 2),
        [
            ("problem", "@problem"),
            ("n", "@n"),
            ("TTS99", "@tts{0.000[0]} (@tts_low{0.000[0]} to @tts_high{0.000[0]})"),
            ("reached", "@successes of @runs"),
        ],
    )
    mark_level(plot, top, "not reached")
    _draw(scene, plot, tts, "tts", low=first, high=top, bars=("tts_low", "tts_high"))
    return Chart(
        "time-to-solution",
        "Time to solution (TTS99)",
        "Seconds of repeated runs until the target is reached with probability 0.99: t · ln 0.01 "
        "/ ln(1 − p), with p the share of runs that reached it by t, at the best t; bars are the "
        "95 % Clopper–Pearson interval of p, hollow where p = 0.",
        plot,
        by_target=True,
    )


def primal_integral_chart(scene: Scene) -> Chart:
    """Draw the mean primal integral of each problem against n."""
    integral = lowest_integral(scene.results)
    positive = integral.loc[integral["primal_integral"] > 0, "primal_integral"]
    low = max(float(positive.min()) if len(positive) else 1e-2, 1e-6)
    plot = _figure(
        scene,
        "primal integral P(T)/T",
        (low / 1.5, 1.5),
        [("problem", "@problem"), ("n", "@n"), ("primal integral", "@primal_integral{0.0000}")],
    )
    _draw(scene, plot, integral, "primal_integral", low=low, high=1.0)
    return Chart(
        "primal-integral",
        "Primal integral",
        "Mean over seeds of the time average of the gap up to the limit T, (1/T) Σ g(tᵢ₋₁)(tᵢ − "
        "tᵢ₋₁), between 0 (the best state at once) and 1 (none in time); lower is better.",
        plot,
    )


def proof_chart(scene: Scene) -> Chart:
    """Draw the seconds to a proof against n, of solvers that bound or prove."""
    title = "Proof curve"
    found = proofs(scene.results)
    bounds = found["proved"] | np.isfinite(found["bound_left"])
    found = found[bounds.groupby(found["solver"]).transform("any")]
    if found.empty:
        return Chart("proof", title, "No solver of this table gave a proof or a bound.")
    first, last = scene.span
    top = last * 2
    plot = _figure(
        scene,
        "seconds to proof",
        (first / 1.3, top * 1.6),
        [("problem", "@problem"), ("n", "@n"), ("seed", "@seed"), ("seconds", "@seconds")],
    )
    mark_level(plot, top, "not proved")
    shown = found[["problem", "n", "seed", "seconds", "bound_left", "solver"]]
    _draw(scene, plot, shown, "seconds", low=first, high=top)
    return Chart(
        "proof",
        title,
        "Seconds until the solver returned a proof of optimality, one point per run, with a "
        "line through the medians of each n; hollow without a proof. Claims that a better state "
        "refutes are not counted.",
        plot,
    )


def bound_chart(scene: Scene) -> Chart:
    """Draw the bound left at the end against n."""
    title = "Bound left"
    found = proofs(scene.results)
    found = found[np.isfinite(found["bound_left"])]
    if found.empty:
        return Chart("bound", title, "No solver of this table gave a bound.")
    top = max(float(found["bound_left"].max()) * 2, 1.0)
    plot = _figure(
        scene,
        "(E − bound) / (E₀ − E*)",
        (FLOOR / 1.5, top),
        [("problem", "@problem"), ("n", "@n"), ("seed", "@seed"), ("left", "@bound_left{0.0e}")],
    )
    plot.yaxis.major_label_overrides = {FLOOR: "proved"}
    shown = found[["problem", "n", "seed", "bound_left", "solver"]]
    _draw(scene, plot, shown, "bound_left", low=FLOOR, high=top)
    return Chart(
        "bound",
        title,
        "Distance of the run's best state from the solver's own lower bound, in units of the "
        "gap; runs with a proof are at the bottom, runs without a bound are not drawn.",
        plot,
    )


def feasible_chart(scene: Scene) -> Chart:
    """Draw the share of feasible samples of penalty solvers against n."""
    title = "Feasible samples of penalty solvers"
    found = feasibility(scene.results)
    found = found[np.isfinite(found["share"])]
    if found.empty:
        return Chart("feasible", title, "No solver of this table used a penalty.")
    plot = _figure(
        scene,
        "share of feasible samples",
        (-0.03, 1.05),
        [("problem", "@problem"), ("n", "@n"), ("seed", "@seed"), ("share", "@share{0.0%}")],
        y_axis="linear",
    )
    shown = found[["problem", "n", "seed", "share", "solver"]]
    _draw(scene, plot, shown, "share", low=0.0, high=1.0)
    return Chart(
        "feasible",
        title,
        "Share of a solver's own samples that had the right number of ones before any repair, "
        "one point per run; solvers that enforce the cardinality are not drawn.",
        plot,
    )


def repair_chart(scene: Scene) -> Chart:
    """Draw the gap without repair against the gap with it."""
    title = "Gap with and without repair"
    found = feasibility(scene.results)
    found = found[np.isfinite(found["gap"]) & np.isfinite(found["raw_gap"])]
    if found.empty:
        return Chart("repair", title, "No solver of this table reports samples before repair.")
    top = max(1.0, float(found[["gap", "raw_gap"]].max().max())) * 1.5
    ends = (FLOOR / 1.5, top)
    plot = new_figure(
        "gap with repair",
        "gap without repair",
        ends,
        ends,
        tooltips=[
            ("problem", "@problem"),
            ("seed", "@seed"),
            ("with", "@gap{0.0e}"),
            ("without", "@raw_gap{0.0e}"),
        ],
    )
    plot.axis.major_label_overrides = {FLOOR: "≤ 1e-7"}
    plot.line(ends, ends, line_color=GREY, line_dash=[3, 3])
    for style in scene.styles:
        mine = found[found["solver"] == style.name].drop(columns=["solver", "share"])
        if len(mine):
            x, y = (np.maximum(mine[name], FLOOR) for name in ("gap", "raw_gap"))
            fill = np.full(len(mine), 0.75)
            draw_points(plot, style, columns_of(mine, _x=x, _y=y, _fill=fill))
    return Chart(
        "repair",
        title,
        "Final gap of each run against that of its best sample that was feasible without repair "
        "(1, the start, where none was): on the line, repair changed nothing.",
        plot,
    )
