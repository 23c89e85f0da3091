"""Facts of each problem, the table of its results, and the curves of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from solvers.comparison.measures import (
    AT_BEST,
    TARGETS,
    lowest_integral,
    par10,
    primal_integral,
    proofs,
    shifted_geometric_mean,
    time_to_solution,
)
from solvers.comparison.measures.gaps import ROUNDING
from solvers.comparison.measures.overview import number, percent
from solvers.comparison.report.curves import SHOWN_TARGET, Scene
from solvers.comparison.report.figures import thin

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: Points of the curve of one run that the page keeps.
MOST_POINTS = 80
HEADINGS = (
    "solver",
    "best gap",
    "median gap",
    "at best known",
    "s to 1e-4",
    "TTS99 1e-4",
    "primal integral",
    "proved in s",
    "bound left",
    "failures",
)


def problem_rows(scene: Scene) -> list[dict[str, Any]]:
    """Return the facts of each problem as text, for the list and the head of its page."""
    integral = lowest_integral(scene.results)
    winners = integral[integral["lowest"]].groupby("problem")["solver"].agg(", ".join)
    rows = []
    for row in scene.results.problems.to_dict("records"):
        bound, start = row["bound"], row["start"]
        if abs(start) < ROUNDING * abs(row["best"]):  # rounding of an energy of 0
            start = 0.0
        rows.append(
            {
                "problem": row["problem"],
                "family": row["family"],
                "n": row["n"],
                "k": row["k"],
                "groups": row["groups"],
                "best": f"{row['best']:.6g}",
                "proved": row["proved"],
                "bound": "" if not np.isfinite(bound) or row["proved"] else f"{bound:.6g}",
                "start": f"{start:.6g}",
                "start_kind": row["start_kind"],
                "winner": winners.get(row["problem"], "–"),
            }
        )
    return rows


def problem_tables(scene: Scene) -> dict[str, list[tuple[int, list[str]]]]:
    """Return for each problem the rows of its table: index of the solver, and cells."""
    results = scene.results
    proved = proofs(results)
    runs = results.runs.assign(
        primal_integral=primal_integral(results),
        proof_seconds=proved["seconds"],
        bound_left=proved["bound_left"],
    )
    times = scene.times[scene.times["target"] == SHOWN_TARGET]
    tts = time_to_solution(times).set_index(["problem", "solver"])
    seconds = times.groupby(["problem", "solver"])["seconds"].median()
    index = {style.name: style.index for style in scene.styles}
    tables: dict[str, list[tuple[int, list[str]]]] = {}
    for (problem, solver), mine in runs.groupby(["problem", "solver"]):
        cells = _cells(mine, float(seconds[problem, solver]), tts.loc[(problem, solver)])
        tables.setdefault(problem, []).append((index[solver], [solver, *cells]))
    return tables


def target_rows(scene: Scene) -> list[tuple[int, list[str]]]:
    """Return for each solver its index, and for each target share, mean time and PAR-10."""
    times = scene.times
    key = ["solver", "target"]
    reached = times.assign(hit=np.isfinite(times["seconds"])).groupby(key)["hit"].mean()
    mean = shifted_geometric_mean(times).set_index(key)["mean"]
    penalised = par10(times).set_index(key)["par10"]
    rows = []
    for style in scene.styles:
        cells = [style.name]
        for target in TARGETS:
            at = (style.name, target)
            cells += [percent(reached[at]), number(mean[at]), number(penalised[at])]
        rows.append((style.index, cells))
    return rows


def _cells(runs: DataFrame, seconds: float, tts: Series) -> list[str]:
    final = runs["gap"].fillna(1.0)
    solution = number(tts["tts"])
    if np.isfinite(tts["tts"]):
        solution += f" ({number(tts['tts_low'])} to {number(tts['tts_high']).replace('–', '∞')})"
    answered = runs["status"] == "solved"
    left = runs["bound_left"]
    return [
        number(runs["gap"].min()),
        number(final.median()) if runs["gap"].notna().any() else "–",
        f"{(runs['gap'] <= AT_BEST).sum()} of {len(runs)}",
        number(seconds),
        solution,
        number(runs["primal_integral"].mean()),
        number(runs["proof_seconds"].min()),
        number(left.median()) if left.notna().any() else "–",
        "; ".join(
            f"{count} {status}"
            for status, count in runs.loc[~answered, "status"].value_counts().items()
        ),
    ]


def curves(scene: Scene) -> list[list[list[Any]]]:
    """Return for each problem its runs: index of the solver, seed, seconds, gaps.

    At most ``MOST_POINTS`` improvements per run: the last one of each time interval.
    """
    results = scene.results
    position = {name: i for i, name in enumerate(results.problems["problem"])}
    index = {style.name: style.index for style in scene.styles}
    found: list[list[list[Any]]] = [[] for _ in position]
    facts = results.runs[["problem", "solver", "seed"]].to_numpy()
    for run, steps in results.steps.groupby("run"):
        problem, solver, seed = facts[run]
        keep = thin(steps["seconds"], MOST_POINTS)
        points = steps[["seconds", "gap"]].to_numpy()[keep].T
        found[position[problem]].append([index[solver], int(seed), *map(_short, points)])
    return found


def _short(values: Any) -> list[float]:
    """Round to four digits, which makes the page smaller without a visible change."""
    return [float(f"{min(value, 1e9):.4g}") for value in values]
