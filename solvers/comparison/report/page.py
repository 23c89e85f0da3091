"""Write a comparison as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from problems.files import write_text
from solvers.comparison.measures import TARGETS, results, spelled, summary
from solvers.comparison.measures.overview import HEADINGS
from solvers.comparison.report import curves, sizes
from solvers.comparison.report.curves import SHOWN_TARGET, Scene
from solvers.comparison.report.facts import facts, failures, refuted
from solvers.comparison.report.figures import Chart, spelled_target
from solvers.comparison.report.html import render
from solvers.comparison.report.problems import HEADINGS as PROBLEM_HEADINGS
from solvers.comparison.report.problems import problem_rows, problem_tables, target_rows

if TYPE_CHECKING:
    from pandas import DataFrame


def write_report(table: DataFrame, path: str | Path, title: str = "Comparison of solvers") -> Path:
    """Write the report of a comparison as a self-contained page of HTML.

    The page opens from disk and makes no network requests. Charts are Bokeh's; solvers
    are switched off and on for all of them at once, the performance profile is computed again
    for those shown, and the data of each chart can be downloaded as CSV.

    Parameters
    ----------
    table : pandas.DataFrame
        One row for each improvement of a run, and one for its end.
    path : str or Path
        File to write; its folder must exist.
    title : str

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TableError
        If the table can't be measured.
    MissingBackendError
        If Bokeh is not installed.
    """
    found = results(table)
    scene = Scene(found)
    charts = draw(scene)
    page = render(
        __package__,
        charts,
        _data(scene),
        title=title,
        facts=facts(table, found),
        styles=scene.styles,
        targets=[spelled_target(target) for target in TARGETS],
        shown=spelled_target(SHOWN_TARGET),
        headings=list(HEADINGS.values()),
        summary=[
            (scene.results.solvers.index(row["solver"]), spelled(row))
            for row in summary(found).to_dict("records")
        ],
        target_rows=target_rows(scene),
        charts=[chart for chart in charts if chart.key != "problem"],
        problem_chart=charts[-1],
        failures=failures(found),
        refuted=refuted(found),
        problems=problem_rows(scene),
        tables=problem_tables(scene),
        problem_headings=PROBLEM_HEADINGS,
    )
    write_text(path, page)
    return Path(path)


def draw(scene: Scene) -> list[Chart]:
    """Draw the charts of the page, in its order; the last one is that of a problem."""
    return [
        curves.ecdf_chart(scene),
        curves.anytime_chart(scene),
        curves.profile_chart(scene),
        sizes.time_to_target_chart(scene),
        sizes.time_to_solution_chart(scene),
        sizes.primal_integral_chart(scene),
        sizes.proof_chart(scene),
        sizes.bound_chart(scene),
        sizes.feasible_chart(scene),
        sizes.repair_chart(scene),
        curves.problem_chart(scene),
    ]


def _data(scene: Scene) -> dict[str, Any]:
    """Return the data of the page's script."""
    from solvers.comparison.measures.profiles import RESOLUTION
    from solvers.comparison.report.problems import curves as curves_of

    solvers = scene.results.solvers
    return {
        "solvers": solvers,
        "problems": scene.results.problems["problem"].tolist(),
        "target": spelled_target(SHOWN_TARGET),
        "resolution": RESOLUTION,
        "span": scene.span,
        # A matrix of problems and solvers; null where a problem was not solved.
        "costs": {
            spelled_target(target): [
                [float(cost) if np.isfinite(cost) else None for cost in row]
                for row in matrix.reindex(columns=solvers).to_numpy()
            ]
            for target, matrix in scene.costs.items()
        },
        "curves": curves_of(scene),
    }
