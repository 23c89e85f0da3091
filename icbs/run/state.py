"""Everything that changes during a run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from icbs.model.layer import Layer
from icbs.run.history import Row
from icbs.selection.block_selection import Tabu

TRUSTED = 0.25
"""What a model must be worth, measured over predicted change, to be used again as it is."""


@dataclass
class RunState:
    """What changes from pass to pass; a checkpoint holds all of it."""

    generator: torch.Generator
    tabus: dict[str, Tabu]
    step: int = 0
    """Passes done."""
    looked: int = 0
    """Samples of the present pass."""
    seen: int = 0
    """Samples of all passes, and of the start."""
    loss: float = float("nan")
    """Held-out loss of the current mask."""
    initial_loss: float = float("nan")
    """Held-out loss of the initial mask."""
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    """Masks (True = pruned, flat) with the lowest held-out loss so far."""
    caution: dict[str, float] = field(default_factory=dict)
    """Factor on κ by layer, 1 where absent; see ``PrunerConfig.caution``."""
    effort: float = 1.0
    """Factor on the samples of a pass; see ``PrunerConfig.sample_growth``."""
    worth: float = math.inf
    """Measured over predicted change of the loss, of the present pass judged as a whole."""
    history: list[Row] = field(default_factory=list)
    warned: bool = False
    """Whether it has been said that nothing moves."""
    started: float = 0.0
    """Wall seconds that the start took, before the first pass."""
    _began: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def seconds(self) -> float:
        """Wall seconds spent, over all resumptions."""
        return time.perf_counter() - self._began

    def set_clock(self, seconds: float) -> None:
        """Let the clock go on from a time already spent."""
        self._began = time.perf_counter() - seconds

    def learn(self, layer: Layer, *, accepted: bool, factor: float) -> None:
        """Grow more cautious about a layer whose move was undone, bolder where it was kept."""
        caution = self.caution.get(layer.name, 1.0)
        least = min(1.0, caution)  # below 1 where nothing moved before
        caution = max(least, caution / factor**0.25) if accepted else caution * factor
        self.caution[layer.name] = min(caution, 1e6)

    def trust(self, layers: Sequence[Layer], worth: float, factor: float) -> None:
        """Learn from a pass judged as a whole what its model was worth.

        As in a trust region: bolder where the model did half as well as it said, more cautious
        where it did less than a quarter as well, and much more where it was wrong. Never is all
        kept of what some samples promise, however small the move; so 1 is no aim.

        Parameters
        ----------
        layers : sequence of Layer
        worth : float
            Measured over predicted change of the loss; infinity where κ was too large for any
            move to pay.
        factor : float
            See ``PrunerConfig.caution``.
        """
        # A loss that is no number is as bad as any.
        self.worth = worth if worth > -math.inf else -math.inf
        power = 6
        for least, smaller in ((0.0, 4), (TRUSTED, 0), (0.5, -2), (math.inf, -4)):
            if self.worth >= least:
                power = smaller
        for layer in layers:
            caution = self.caution.get(layer.name, 1.0) * factor**power
            self.caution[layer.name] = min(max(caution, 1e-6), 1e6)

    def remember(self, layers: list[Layer]) -> None:
        """Keep the current masks if their held-out loss is the lowest so far."""
        if self.loss <= self.best_loss:
            self.best_loss = self.loss
            self.best = {layer.name: layer.pruned.clone() for layer in layers}
