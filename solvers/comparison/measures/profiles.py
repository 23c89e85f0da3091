"""Empirical distribution of times (data profile) and performance profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from solvers.comparison.extra import importing

with importing():
    import pandas as pd

if TYPE_CHECKING:
    from pandas import DataFrame

#: Seconds below which times differ only by the overhead of a call.
RESOLUTION = 1e-4


def ecdf(times: DataFrame) -> DataFrame:
    """Return the share of (problem, target, seed) that each solver reached within t.

    The data profile of Moré and Wild (SIAM J. Optim. 20, 2009), over targets as in COCO. Runs
    that failed are in the denominator.

    Parameters
    ----------
    times : pandas.DataFrame
        Of :func:`solvers.comparison.measures.time_to_target`.

    Returns
    -------
    pandas.DataFrame
        ``solver, seconds, share``: ascending in a solver, one row for each time at which the
        share grows; no row where nothing was reached.
    """
    total = times.groupby("solver").size()
    hits = times[np.isfinite(times["seconds"])]
    counts = hits.groupby(["solver", "seconds"]).size().groupby("solver").cumsum()
    frame = counts.rename("share").reset_index()
    # Without any hit, pandas would map to str.
    return frame.assign(share=frame["share"] / frame["solver"].map(total).astype(float))


def performance_profile(
    costs: DataFrame, solvers: Sequence[str] | None = None, resolution: float = RESOLUTION
) -> DataFrame:
    """Return ρ_s(τ): the share of problems with t_{p,s} ≤ τ · min over s of t_{p,s}.

    After Dolan and Moré (Math. Program. 91, 2002). It compares with the best solver *of the
    set*, so each set has its own. Problems that no solver of the set solves stay in
    the denominator.

    Parameters
    ----------
    costs : pandas.DataFrame, shape (problems, solvers)
        t_{p,s} in seconds, infinite where the problem is not solved.
    solvers : sequence of str, optional
        The set; all columns if omitted.
    resolution : float
        Smaller costs count as this.

    Returns
    -------
    pandas.DataFrame
        ``solver, tau, share``: ascending in a solver, one row for each τ at which its share
        grows, the first one at τ = 1.
    """
    chosen = list(costs.columns) if solvers is None else list(solvers)
    values = np.maximum(costs[chosen].to_numpy(dtype=float), resolution)
    best = values.min(axis=1, keepdims=True)
    ratios = np.where(np.isfinite(values), values / np.where(np.isfinite(best), best, 1.0), np.inf)
    frames = []
    for name, column in zip(chosen, ratios.T, strict=True):
        tau = np.unique(np.append(column[np.isfinite(column)], 1.0))
        share = [float((column <= t).mean()) for t in tau]
        frames.append(pd.DataFrame({"solver": name, "tau": tau, "share": share}))
    return pd.concat(frames, ignore_index=True)


def costs_of(frame: DataFrame, value: str, target: float) -> DataFrame:
    """Return a matrix of problems and solvers, of one target; infinite where there is no row.

    Parameters
    ----------
    frame : pandas.DataFrame
        With ``problem, solver, target`` and the value, such as that of
        :func:`solvers.comparison.measures.expected_running_time`.
    value : str
        The column to take.
    target : float
    """
    matrix = frame[frame["target"] == target].pivot(index="problem", columns="solver", values=value)
    return matrix.fillna(np.inf)
