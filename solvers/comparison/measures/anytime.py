"""The gap as a function of time, and its integral."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from solvers.comparison.extra import importing
from solvers.comparison.measures.gaps import Results

with importing():
    import pandas as pd

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def gaps_at(results: Results, times: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return g(t) of every run, at the times given.

    g is 1 before the first feasible state, and at most 1: a state worse than the start is counted
    as the start.

    Parameters
    ----------
    results : Results
    times : sequence of float, shape (m,)
        Seconds.

    Returns
    -------
    ndarray of float64, shape (runs, m)
    """
    found = np.ones((len(results.runs), len(times)))
    for run, steps in results.steps.groupby("run"):
        values = np.concatenate([[1.0], np.minimum(steps["gap"].to_numpy(), 1.0)])
        found[run] = values[np.searchsorted(steps["seconds"].to_numpy(), times, side="right")]
    return found


def anytime_gap(results: Results, times: Sequence[float]) -> DataFrame:
    """Return the quartiles of g(t) over problems and seeds, for every solver.

    Parameters
    ----------
    results : Results
    times : sequence of float
        Seconds.

    Returns
    -------
    pandas.DataFrame
        ``solver, seconds, q25, median, q75``.
    """
    gaps = gaps_at(results, times)
    solver = results.runs["solver"].to_numpy()
    frames = []
    for name in results.solvers:
        q25, median, q75 = np.quantile(gaps[solver == name], [0.25, 0.5, 0.75], axis=0)
        frames.append(
            pd.DataFrame(
                {"solver": name, "seconds": times, "q25": q25, "median": median, "q75": q75}
            )
        )
    return pd.concat(frames, ignore_index=True)


def primal_integral(results: Results) -> Series:
    """Return P(T)/T = (1/T) Σ g(tᵢ₋₁)(tᵢ − tᵢ₋₁) of every run, T its time limit.

    g is that of :func:`gaps_at`, within [0, 1], so the integral is as well: 0 with the best known
    state from the first moment, 1 without any state. After Berthold, "Measuring the impact of
    primal heuristics" (Operations Research Letters 41, 2013), with this project's gap.

    Returns
    -------
    pandas.Series of float, by position of the run
    """
    limit = results.runs["time_limit"]
    steps = results.steps.assign(limit=limit.loc[results.steps["run"]].to_numpy())
    begin = np.minimum(steps["seconds"], steps["limit"])
    until = begin.groupby(steps["run"]).shift(-1).fillna(steps["limit"])
    area = (np.minimum(steps["gap"], 1.0) * (until - begin)).groupby(steps["run"]).sum()
    first = begin.groupby(steps["run"]).first()
    whole = (first + area).reindex(limit.index)
    return (whole / limit).fillna(1.0).clip(0.0, 1.0).rename("primal_integral")


def lowest_integral(results: Results) -> DataFrame:
    """Return each solver's mean primal integral on each problem, and whether it is the lowest.

    Returns
    -------
    pandas.DataFrame
        ``problem, n, solver, primal_integral, lowest``; equal ones are both lowest, and none is
        where no solver has any state better than the start.
    """
    runs = results.runs.assign(primal_integral=primal_integral(results))
    mean = runs.groupby(["problem", "n", "solver"], as_index=False)["primal_integral"].mean()
    least = mean.groupby("problem")["primal_integral"].transform("min")
    mean["lowest"] = (mean["primal_integral"] <= least * (1 + 1e-12)) & (least < 1)
    return mean
