"""Weights of the records in an average over training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from icbs.errors import ConfigError

AverageName = Literal["uniform", "linear", "exponential", "loss"]


def uniform(number: int, loss: float | None) -> float:
    """Weight every record equally."""
    return 1.0


def linear(number: int, loss: float | None) -> float:
    """Weight a record by its number, from 1."""
    return float(number)


def by_loss(number: int, loss: float | None) -> float:
    """Weight a record by the inverse of its validation loss.

    Raises
    ------
    ConfigError
        If there is no loss, or it is not a positive number.
    """
    if loss is None or not (math.isfinite(loss) and loss > 0):
        raise ConfigError(
            f"average='loss' weights a record by 1 / loss, and the loss is {loss}; pass a positive "
            "validation loss to update, or choose average='uniform'"
        )
    return 1.0 / loss


#: ``weight(number, loss)`` by name. ``exponential`` forgets earlier records instead.
AVERAGES: dict[str, Callable[[int, float | None], float]] = {
    "uniform": uniform,
    "linear": linear,
    "exponential": uniform,
    "loss": by_loss,
}
