"""Masks of a run next to the optimum of the quadratic model and the true optimum, as a file."""

from __future__ import annotations

from icbs.export.headers import Count, Header

FILE = "optimum.json"
"""Name of the file of a comparison in a run folder."""


class Stage(Header):
    """Masks and their losses."""

    name: str
    loss: float
    """Training loss, over all samples."""
    share: float | None
    """Achieved share of the possible decrease from the start to the true optimum; None for the
    dense model, and if the start is the optimum."""
    rank: Count | None
    """Rank among all masks, from 1; None for the dense model."""
    figures: dict[str, float]
    """Test figures; empty without an evaluation."""


class Comparison(Header):
    """Masks of a run next to the optimum of the quadratic model and the true optimum."""

    num_masks: Count
    """Number of masks that were evaluated."""
    stages: list[Stage]
    """Dense model, start, optimum of the quadratic model, first solution of the run's solver,
    masks of the run, true optimum."""
    predicted: float
    """Change of the loss that the quadratic model of the start predicts at its optimum."""
    actual: float
    """Change of the training loss there."""
    proved: bool
    """Whether that optimum is proved."""
    solver: str
    solver_share: float | None
    """Energy of the solver's first solution as a share of the optimum's; None if it failed, or if
    the start is optimal."""

    def stage(self, beginning: str) -> Stage:
        """Return the first stage whose name begins so."""
        return next(stage for stage in self.stages if stage.name.startswith(beginning))
