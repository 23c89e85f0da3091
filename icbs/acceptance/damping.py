"""Damping: a factor on the curvature, increased for layers whose predictions are inaccurate."""

from __future__ import annotations

import math
from collections.abc import Iterable

_MOST, _LEAST = 1e6, 1e-6
#: Minimum gain ratio → power of the factor that multiplies the damping (a trust-region update).
#: Held-out gain is systematically below the prediction, so the target ratio is 0.5, not 1.
_STEPS = ((0.0, 4), (0.25, 0), (0.5, -2), (math.inf, -4))


class Damping:
    """Factor on κ for each layer, initially 1.

    Near a minimum the error of the quadratic model exceeds the gain of a full move. A larger κ
    gives smaller moves, which are still accepted.

    Parameters
    ----------
    factor : float
        Factor on κ after a rejected move, at least 1; 1 disables damping.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.by_layer: dict[str, float] = {}

    def of(self, layers: Iterable[str]) -> float:
        """Return the factor on κ for a block of these layers."""
        return max(self.by_layer.get(name, 1.0) for name in layers)

    def update(self, layers: Iterable[str], *, accepted: bool) -> None:
        """Multiply by the factor after a rejected move; divide by its fourth root otherwise.

        Four accepted moves cancel one rejected move.
        """
        for name in layers:
            value = self.by_layer.get(name, 1.0)
            least = min(1.0, value)  # below 1 if earlier passes moved nothing
            value = max(least, value / self.factor**0.25) if accepted else value * self.factor
            self.by_layer[name] = min(value, _MOST)

    def update_trust_region(self, layers: Iterable[str], gain_ratio: float) -> None:
        """Update from the gain ratio of moves that were evaluated together.

        Damping decreases for a gain ratio of at least one half, increases below a quarter, and
        increases more if the loss increased.

        Parameters
        ----------
        layers : iterable of str
        gain_ratio : float
            Measured over predicted change of the loss; infinity if κ was so large that no move
            was predicted to lower the loss. NaN counts as an increase.
        """
        power = 6
        for least, smaller in _STEPS:
            if gain_ratio >= least:
                power = smaller
        for name in layers:
            value = self.by_layer.get(name, 1.0) * self.factor**power
            self.by_layer[name] = min(max(value, _LEAST), _MOST)
