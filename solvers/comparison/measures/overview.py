"""Summary of a comparison, with one line per solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from solvers.comparison.extra import importing
from solvers.comparison.measures.anytime import lowest_integral, primal_integral
from solvers.comparison.measures.bounds import proofs
from solvers.comparison.measures.gaps import AT_BEST, Results, results
from solvers.comparison.measures.times import shifted_geometric_mean, time_to_target

with importing():
    import pandas as pd

if TYPE_CHECKING:
    from pandas import DataFrame

#: Target gap of the mean time in the summary.
SUMMARY_TARGET = 1e-4
#: Columns of a summary and their headings.
HEADINGS = {
    "solver": "solver",
    "runs": "runs",
    "at_best": "at best known",
    "median_gap": "median gap",
    "primal_integral": "primal integral",
    "lowest": "lowest integral",
    "seconds": "mean s to 1e-4",
    "proofs": "proofs",
    "failures": "failures",
    "unsupported": "not supported",
}


def summary(table: DataFrame | Results) -> DataFrame:
    """Summarise a comparison: one row per solver, the best first.

    Parameters
    ----------
    table : pandas.DataFrame or Results
        The table of a comparison, or the :class:`Results` of it.

    Returns
    -------
    pandas.DataFrame
        ``solver``, ``runs``; ``at_best``: share of (problem, seed) at the best known value;
        ``median_gap``: median of the final gaps, 1 for runs without a state in time;
        ``primal_integral``: mean; ``lowest``: share of the problems on which it has the lowest
        mean primal integral; ``seconds``: shifted geometric mean to a gap of 1e-4;
        ``proofs``: runs that proved the optimum; ``failures``: runs that failed, were killed or
        found nothing; ``unsupported``: runs that the solver does not take.

    Raises
    ------
    TableError
        If the table can't be measured.
    """
    found = table if isinstance(table, Results) else results(table)
    runs = found.runs.assign(
        primal_integral=primal_integral(found),
        at_best=found.runs["gap"] <= AT_BEST,
        counted=found.runs["gap"].fillna(1.0),
        proved=proofs(found)["proved"],
        failed=found.runs["status"].isin(["failed", "timeout", "nothing"]),
        unsupported=found.runs["status"] == "unsupported",
    )
    frame = runs.groupby("solver").agg(
        runs=("gap", "size"),
        at_best=("at_best", "mean"),
        median_gap=("counted", "median"),
        primal_integral=("primal_integral", "mean"),
        proofs=("proved", "sum"),
        failures=("failed", "sum"),
        unsupported=("unsupported", "sum"),
    )
    frame["lowest"] = lowest_integral(found).groupby("solver")["lowest"].mean()
    times = time_to_target(found, [SUMMARY_TARGET])
    frame["seconds"] = shifted_geometric_mean(times).set_index("solver")["mean"]
    ranked = frame.reset_index().sort_values(["primal_integral", "solver"], ignore_index=True)
    return pd.DataFrame(ranked[list(HEADINGS)])


def spelled(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of one row of a summary as text, in the order of ``HEADINGS``."""
    counts = ("runs", "proofs", "failures", "unsupported")
    shares = ("at_best", "lowest")
    cells = []
    for name in HEADINGS:
        value = row[name]
        if name == "solver":
            cells.append(str(value))
        elif name in counts:
            cells.append(str(int(value)))
        elif name in shares:
            cells.append(percent(value))
        else:
            cells.append(number(value))
    return cells


def summary_rows(table: DataFrame | Results) -> list[list[str]]:
    """Return a summary as text for a terminal: the headings, then one row per solver.

    Parameters
    ----------
    table : pandas.DataFrame or Results
        As for :func:`summary`.
    """
    rows = summary(table).to_dict("records")
    return [list(HEADINGS.values()), *map(spelled, rows)]


def percent(share: float) -> str:
    """Return a share in percent; only 1 is shown as 100 %, only 0 as 0 %."""
    if not np.isfinite(share):
        return "–"
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return f"{min(max(share, 0.001), 0.999):.1%}"


def number(value: float) -> str:
    """Return a number with three digits, "–" if it is missing or infinite."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
