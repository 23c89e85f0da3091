"""Scores from training: averages and spreads of weights, and gradients, over a run of training."""

from __future__ import annotations

from icbs.trajectory.record import Record
from icbs.trajectory.recorder import Trajectory

__all__ = ["Record", "Trajectory"]
