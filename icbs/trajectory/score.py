"""Score of weights by the record of their training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from icbs.config import PrunerConfig, brief
from icbs.curvature.passes import Pass
from icbs.errors import ConfigError, LayerError
from icbs.formatting import counted
from icbs.model.layer import Layer
from icbs.trajectory.record import Record

TINY = 1e-12


def _some(values: Mapping[str, Tensor]) -> bool:
    return any(bool(value.any()) for value in values.values())


class TrajectoryScore:
    """``|W̄|``, ``|W̄| / std(W)`` or the accumulated ``|w ∘ g|`` of a training run.

    Parameters
    ----------
    config : PrunerConfig
        ``trajectory`` names the file, ``trajectory_score`` the score.

    Raises
    ------
    ConfigError
        If there is no file, or it has no record for the score: no observed gradient for
        ``gradients``, fewer than two updates or no change between them for ``stability``.
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
                "(spread=True, or gradients='momentum' and observe()), or choose 'average'"
            )
        if self.kind == "stability":
            updates = int(self.record.facts.get("records", 2))
            if updates < 2 or not _some(self.record.spread):
                raise ConfigError(
                    f"{config.trajectory} has no spread of the weights for the score 'stability': "
                    f"{counted(updates, 'update')}, between which no weight changed; call "
                    "update() after each epoch, or choose 'average'"
                )
        if self.kind == "gradients" and not _some(self.record.gradients):
            raise ConfigError(
                f"{config.trajectory} has gradient scores of 0 only; call observe() after each "
                "backward() of the trained model, or choose 'average'"
            )

    def check(self, layers: list[Layer]) -> None:
        """Refuse the record of another model.

        Raises
        ------
        LayerError
            Also if a layer has no gradient score but 0.
        """
        self.record.check(layers)
        if self.kind == "gradients":
            own = self.record.gradients
            if empty := [layer.name for layer in layers if not own[layer.name].any()]:
                raise LayerError(
                    f"the gradient scores of {brief(empty)} are all 0: these layers had no "
                    "gradient in training; exclude them, or choose trajectory_score='average'"
                )

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
