"""Curves over the seconds at which a run's incumbents were found."""

from __future__ import annotations

from typing import Any

import numpy as np


def times_of(df: Any) -> Any:
    """Return 60 times from the first incumbent to the last end, on a logarithmic scale."""
    seconds = df["objective_seconds"]
    positive = seconds[seconds > 0]
    if positive.empty:
        return np.array([1e-3, 1.0])
    return np.geomspace(positive.min(), max(positive.max(), 1.01 * positive.min()), 60)


def gaps(df: Any, times: Any) -> Any:
    """Return the gap of each run at each time, shape (runs, times); 1 before its first state."""
    rows = []
    for _, run in df.groupby(["dataset_name", "idx_rep"]):
        steps = run.sort_values("objective_seconds")
        values = np.minimum.accumulate([1.0, *steps["objective_value"]])
        rows.append(values[np.searchsorted(steps["objective_seconds"], times, side="right")])
    return np.array(rows)
