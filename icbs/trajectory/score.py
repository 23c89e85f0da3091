"""Score of weights by the record of their training."""

from __future__ import annotations

import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.curvature.passes import Pass
from icbs.errors import ConfigError
from icbs.model.layer import Layer
from icbs.trajectory.record import Record

TINY = 1e-12


class TrajectoryScore:
    """``|W̄|``, ``|W̄| / std(W)`` or the accumulated ``|w ∘ g|`` of a training run.

    Parameters
    ----------
    config : PrunerConfig
        ``trajectory`` names the file, ``trajectory_score`` the score.

    Raises
    ------
    ConfigError
        If there is no file, or it has no record for the score.
    RunFolderError
        If the file is missing, damaged or of another format.
    """

    def __init__(self, config: PrunerConfig) -> None:
        if config.trajectory is None:
            raise ConfigError(
                "the score 'trajectory' needs the file of a recorded training: set trajectory=FILE "
                "(icbs.Trajectory records it)"
            )
        self.record, self.kind = Record.load(config.trajectory), config.trajectory_score
        recorded = {"stability": self.record.spread, "gradients": self.record.gradients}
        if self.kind in recorded and not recorded[self.kind]:
            raise ConfigError(
                f"{config.trajectory} has no record for trajectory_score={self.kind!r}; record it "
                "(spread=True, or gradients='momentum'), or choose 'average'"
            )

    def check(self, layers: list[Layer]) -> None:
        """Refuse the record of another model.

        Raises
        ------
        LayerError
        """
        self.record.check(layers)

    def __call__(self, layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
        """Return the scores of a layer's weights, shape (out, in)."""
        name = layer.name
        if self.kind == "gradients":
            score = self.record.gradients[name]
        else:
            score = self.record.average[name].abs()
            if self.kind == "stability":
                score = score / (self.record.spread[name] + TINY)
        return layer.kind.matrix(score).to(layer.dense)
