"""Damping: a factor on the curvature that shrinks the moves of layers whose models fail."""

from __future__ import annotations

import math
from collections.abc import Iterable

_MOST, _LEAST = 1e6, 1e-6
#: Least gain ratio → power of the factor by which damping changes, as a trust region's radius
#: does. Held-out gain is systematically below the prediction, so the target ratio is 0.5, not 1.
_STEPS = ((0.0, 4), (0.25, 0), (0.5, -2), (math.inf, -4))


class Damping:
    """Factor on κ by layer, 1 at first.

    Near a minimum the quadratic model errs by more than a full move gains, and smaller moves,
    which a larger κ makes, are still accepted.

    Parameters
    ----------
    factor : float
        Factor on κ after a rejected move, at least 1; 1 switches damping off.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.by_layer: dict[str, float] = {}

    def of(self, layers: Iterable[str]) -> float:
        """Return the factor on κ for a block of these layers."""
        return max(self.by_layer.get(name, 1.0) for name in layers)

    def update(self, layers: Iterable[str], *, accepted: bool) -> None:
        """Learn from one move: multiply by the factor if it was rejected, else divide by a root.

        Four accepted moves make up for one that was rejected.
        """
        for name in layers:
            value = self.by_layer.get(name, 1.0)
            least = min(1.0, value)  # below 1 where nothing moved before
            value = max(least, value / self.factor**0.25) if accepted else value * self.factor
            self.by_layer[name] = min(value, _MOST)

    def update_trust_region(self, layers: Iterable[str], gain_ratio: float) -> None:
        """Learn from moves that were judged together.

        Damping falls where the model achieved half of its prediction, rises where it achieved
        less than a quarter, and more where the loss rose.

        Parameters
        ----------
        layers : iterable of str
        gain_ratio : float
            Measured over predicted change of the loss; infinity where κ was too large for any
            move to pay. NaN counts as a rise.
        """
        power = 6
        for least, smaller in _STEPS:
            if gain_ratio >= least:
                power = smaller
        for name in layers:
            value = self.by_layer.get(name, 1.0) * self.factor**power
            self.by_layer[name] = min(max(value, _LEAST), _MOST)
