"""Measures of a comparison: pure functions over its table, formulas in their docstrings."""

from solvers.comparison.measures.anytime import (
    anytime_gap,
    gaps_at,
    lowest_integral,
    primal_integral,
)
from solvers.comparison.measures.bounds import feasibility, proofs
from solvers.comparison.measures.gaps import AT_BEST, GRACE, Results, gap, results
from solvers.comparison.measures.overview import HEADINGS, spelled, summary, summary_rows
from solvers.comparison.measures.profiles import costs_of, ecdf, performance_profile
from solvers.comparison.measures.times import (
    ECDF_TARGETS,
    TARGETS,
    expected_running_time,
    par10,
    restarts,
    share_interval,
    shifted_geometric_mean,
    time_to_solution,
    time_to_target,
)

__all__ = [
    "AT_BEST",
    "ECDF_TARGETS",
    "GRACE",
    "HEADINGS",
    "TARGETS",
    "Results",
    "anytime_gap",
    "costs_of",
    "ecdf",
    "expected_running_time",
    "feasibility",
    "gap",
    "gaps_at",
    "lowest_integral",
    "par10",
    "performance_profile",
    "primal_integral",
    "proofs",
    "restarts",
    "results",
    "share_interval",
    "shifted_geometric_mean",
    "spelled",
    "summary",
    "summary_rows",
    "time_to_solution",
    "time_to_target",
]
