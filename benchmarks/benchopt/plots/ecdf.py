"""The share of (problem, repetition, target) that a solver has reached by a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmark_utils.curves import gaps, times_of
from benchopt import BasePlot

TARGETS = np.logspace(-1, -6, 26)


class Plot(BasePlot):
    """The data profile of Moré and Wild, over targets as in COCO."""

    name = "ecdf"
    type = "scatter"
    options = {"objective": ...}  # noqa: RUF012

    def plot(self, df: Any, objective: str) -> list[dict[str, Any]]:
        """Return a curve for each solver."""
        df = df[df["objective_name"] == objective]
        times = times_of(df)
        curves = []
        for solver, runs in df.groupby("solver_name"):
            reached = gaps(runs, times)[:, :, None] <= TARGETS
            share = reached.mean(axis=(0, 2))
            curves.append(
                {"x": times.tolist(), "y": share.tolist(), "label": solver} | self.get_style(solver)
            )
        return curves

    def get_metadata(self, df: Any, objective: str) -> dict[str, str]:
        """Name the axes."""
        return {
            "title": "Share of targets reached, gaps 1e-1 to 1e-6",
            "xlabel": "seconds",
            "ylabel": "share of (problem, repetition, target)",
        }
