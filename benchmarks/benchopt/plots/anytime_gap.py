"""The gap against the time, median and quartiles over the repetitions on one problem."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmark_utils.curves import gaps, times_of
from benchopt import BasePlot


class Plot(BasePlot):
    """One curve a solver: how close it is by when."""

    name = "anytime gap"
    type = "scatter"
    options = {"dataset": ...}  # noqa: RUF012

    def plot(self, df: Any, dataset: str) -> list[dict[str, Any]]:
        """Return a curve for each solver."""
        df = df[df["dataset_name"] == dataset]
        times = times_of(df)
        return [
            {
                "x": times.tolist(),
                "y": np.median(gaps(runs, times), axis=0).tolist(),
                "label": solver,
                **self.get_style(solver),
            }
            for solver, runs in df.groupby("solver_name")
        ]

    def get_metadata(self, df: Any, dataset: str) -> dict[str, str]:
        """Name the axes."""
        return {
            "title": f"Median gap\n{dataset}",
            "xlabel": "seconds",
            "ylabel": "(E - best) / (status quo - best)",
        }
