"""Proofs and bounds, and the effect of penalties and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from solvers.comparison.measures.gaps import AT_BEST, Results, gap

if TYPE_CHECKING:
    from pandas import DataFrame


def proofs(results: Results) -> DataFrame:
    """Return the seconds to a proof and the bound left, for every run.

    Returns
    -------
    pandas.DataFrame
        ``problem, n, solver, seed, proved, seconds, bound_left, refuted``. ``seconds`` is
        infinite without a proof; ``bound_left`` = (E − bound) / (E₀ − E*) with E the best state
        of the run, 0 with a proof, NaN without a bound; ``refuted`` marks claims that
        E* contradicts, which count as no proof and no bound.
    """
    runs = results.runs
    best, start = runs["best"], runs["start"]
    bound = runs["bound"].where(np.isfinite(runs["bound"]))
    claims = (runs["known"] == "optimal") & np.isfinite(runs["final"])
    false_proof = claims & (gap(runs["final"], best, start) > AT_BEST)
    # A bound above E* is wrong: E* is the energy of a feasible state.
    false_bound = gap(bound, best, start) > AT_BEST
    refuted = false_proof | false_bound
    proved = claims & ~refuted
    left = gap(runs["final"], bound, bound + (start - best))
    return runs[["problem", "n", "solver", "seed"]].assign(
        proved=proved,
        seconds=runs["seconds"].where(proved, np.inf),
        bound_left=np.where(proved, 0.0, np.where(refuted, np.nan, left)),
        refuted=refuted,
    )


def feasibility(results: Results) -> DataFrame:
    """Return the share of feasible samples and the gaps with and without repair.

    Returns
    -------
    pandas.DataFrame
        ``problem, n, solver, seed, share, gap, raw_gap`` of the runs that have the share or the
        raw energy, of solvers that used a penalty or had an infeasible sample. ``share`` is that
        of the solver's own samples before repair; ``raw_gap`` is the gap of the best sample that
        was feasible without repair, 1 (the start) where none was, NaN if it is unknown.
    """
    runs = results.runs
    raw = gap(runs["raw_energy"], runs["best"], runs["start"])
    raw = np.where(runs["feasible_share"] == 0, 1.0, raw)
    known = np.isfinite(runs["feasible_share"]) | np.isfinite(runs["raw_energy"])
    penalised = np.isfinite(runs["penalty"]) | (runs["feasible_share"] < 1)
    known &= penalised.groupby(runs["solver"]).transform("any")
    frame = runs[["problem", "n", "solver", "seed"]].assign(
        share=runs["feasible_share"],
        gap=gap(runs["final"], runs["best"], runs["start"]),
        raw_gap=raw,
    )
    return frame[known].reset_index(drop=True)
