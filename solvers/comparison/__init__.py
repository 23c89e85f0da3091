"""Compare solvers on problems: one table of runs, measures over it, and a report.

A campaign (:mod:`solvers.comparison.campaign`) runs every solver on every problem with every
seed, in processes that can be killed; :mod:`solvers.comparison.table` describes its table,
:mod:`solvers.comparison.measures` what is computed from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from solvers.comparison.campaign import Campaign, Progress
    from solvers.comparison.config import CampaignConfig, ProblemSpec, SolverSpec
    from solvers.comparison.entry import compare

__all__ = ["Campaign", "CampaignConfig", "ProblemSpec", "Progress", "SolverSpec", "compare"]

_HOME = {
    "Campaign": "solvers.comparison.campaign",
    "CampaignConfig": "solvers.comparison.config",
    "ProblemSpec": "solvers.comparison.config",
    "Progress": "solvers.comparison.campaign",
    "SolverSpec": "solvers.comparison.config",
    "compare": "solvers.comparison.entry",
}
__getattr__, __dir__ = attach(globals(), _HOME)
