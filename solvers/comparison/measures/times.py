"""Times to a target gap, and statistics over runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv

from solvers.comparison.extra import importing
from solvers.comparison.measures.gaps import Results

with importing():
    import pandas as pd

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: Target gaps of the tables.
TARGETS = (1e-2, 1e-4, 1e-6)
#: Target gaps of the ECDF, five per decade.
ECDF_TARGETS = tuple(float(f"{t:.3g}") for t in np.logspace(-1, -6, 26))
#: Share of the time-to-solution: the target is reached with this probability.
CERTAIN = 0.99
#: Columns that group runs which differ only in their seed.
CELL = ["problem", "n", "solver", "target"]


def time_to_target(results: Results, targets: Sequence[float] = TARGETS) -> DataFrame:
    """Return the seconds until g ≤ target, for every run and target.

    Parameters
    ----------
    results : Results
    targets : sequence of float
        Gaps.

    Returns
    -------
    pandas.DataFrame
        ``run, problem, n, solver, seed, time_limit, target, seconds, spent``: ``seconds`` is
        infinite where the target was not reached in time; ``spent`` is ``seconds`` where it was,
        else the run's time: the seconds of its end, at least the time limit if it failed, was
        killed or is not supported.
    """
    columns = ["problem", "n", "solver", "seed", "time_limit"]
    runs = results.runs
    came_back = runs["status"].isin(["solved", "nothing"]) & np.isfinite(runs["seconds"])
    taken = runs["seconds"].where(came_back, np.fmax(runs["time_limit"], runs["seconds"]))
    frames = []
    for target in targets:
        hits = results.steps[results.steps["gap"] <= target]
        first = hits.groupby("run")["seconds"].min().reindex(runs.index)
        frame = runs[columns].assign(
            target=target, seconds=first.fillna(np.inf), spent=first.fillna(taken)
        )
        frames.append(frame.rename_axis("run").reset_index())
    return pd.concat(frames, ignore_index=True)


def expected_running_time(times: DataFrame) -> DataFrame:
    """Return ERT = Σ time of all runs / number of runs that reached the target.

    It is the expected time of runs started again until one succeeds (Hansen et al., COCO, 2021);
    infinite where none did.

    Parameters
    ----------
    times : pandas.DataFrame
        Of :func:`time_to_target`.

    Returns
    -------
    pandas.DataFrame
        ``problem, n, solver, target, ert``.
    """
    cells = times.assign(hit=np.isfinite(times["seconds"])).groupby(CELL)
    sums = cells[["spent", "hit"]].sum()
    ert = (sums["spent"] / sums["hit"].where(sums["hit"] > 0)).fillna(np.inf)
    return ert.rename("ert").reset_index()


@cache
def share_interval(successes: int, runs: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Clopper–Pearson interval of a share, valid for any number of runs.

    Parameters
    ----------
    successes, runs : int
    confidence : float

    Returns
    -------
    (float, float)
    """
    tail = (1 - confidence) / 2
    low = betaincinv(successes, runs - successes + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, runs - successes, 1 - tail) if successes < runs else 1.0
    return float(low), float(high)


def restarts(p: float) -> float:
    """Return ln(0.01) / ln(1 − p): runs until the target is reached with probability 0.99.

    At least 1; infinite at p = 0.
    """
    if p >= CERTAIN:
        return 1.0
    return float(np.log(1 - CERTAIN) / np.log1p(-p)) if p > 0 else float("inf")


def time_to_solution(times: DataFrame, confidence: float = 0.95) -> DataFrame:
    """Return TTS99 = min over t of t · ln(0.01) / ln(1 − p(t)), with p(t) the share of hits by t.

    The best length of a run is chosen among the times at which runs reached the target (Rønnow et
    al., Science 345, 2014); with p = 1 that is at most the last of them. The interval is that of
    p at the chosen t, and ignores the choice.

    Parameters
    ----------
    times : pandas.DataFrame
        Of :func:`time_to_target`.
    confidence : float

    Returns
    -------
    pandas.DataFrame
        ``problem, n, solver, target, runs, successes, p, p_low, p_high, tts, tts_low, tts_high``.
        Where no run reached the target, ``tts`` is infinite and ``tts_low`` is what the upper
        limit of p and runs as long as the time limit give.
    """
    rows = [
        (*key, *_time_to_solution(cell["seconds"], float(cell["time_limit"].max()), confidence))
        for key, cell in times.groupby(CELL)
    ]
    names = ["runs", "successes", "p", "p_low", "p_high", "tts", "tts_low", "tts_high"]
    return pd.DataFrame(rows, columns=[*CELL, *names])


def _time_to_solution(seconds: Series, limit: float, confidence: float) -> tuple[float, ...]:
    runs = len(seconds)
    hits = np.sort(seconds[np.isfinite(seconds)].to_numpy())
    count, length = 0, limit
    if len(hits):
        tts = [t * restarts((i + 1) / runs) for i, t in enumerate(hits)]
        count = int(np.argmin(tts)) + 1
        length = float(hits[count - 1])
    low, high = share_interval(count, runs, confidence)
    return (
        *(runs, len(hits), count / runs, low, high),
        *(length * restarts(p) for p in (count / runs, high, low)),
    )


def par10(times: DataFrame) -> DataFrame:
    """Return the mean time, with ten times the limit for runs that missed the target (PAR-10).

    Parameters
    ----------
    times : pandas.DataFrame
        Of :func:`time_to_target`.

    Returns
    -------
    pandas.DataFrame
        ``solver, target, par10``, over problems and seeds.
    """
    charged = times["seconds"].where(np.isfinite(times["seconds"]), 10 * times["time_limit"])
    mean = times.assign(par10=charged).groupby(["solver", "target"])["par10"].mean()
    return mean.reset_index()


def shifted_geometric_mean(times: DataFrame, shift: float = 1.0) -> DataFrame:
    """Return exp(mean ln(t + s)) − s, with the limit as t of runs that missed the target.

    Parameters
    ----------
    times : pandas.DataFrame
        Of :func:`time_to_target`.
    shift : float
        s in seconds; times well below it hardly count.

    Returns
    -------
    pandas.DataFrame
        ``solver, target, mean``, over problems and seeds.
    """
    charged = np.fmin(times["seconds"], times["time_limit"])
    logs = times.assign(mean=np.log(charged + shift)).groupby(["solver", "target"])["mean"]
    return (np.exp(logs.mean()) - shift).reset_index()
