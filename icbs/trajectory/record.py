"""A finished record of training, as a file next to the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icbs.errors import LayerError
from icbs.export.safetensors_files import open_tensors, write_tensors
from icbs.model.layer import Layer

FORMAT = "icbs-trajectory-1"
LEAST_COSINE = 0.2
"""Least cosine of the angle between the average and the weights of one model."""


@dataclass
class Record:
    """Weights averaged over training, their spread, and scores from gradients.

    All tensors are float32, in the shapes of the layers' weights, by layer name.
    """

    average: dict[str, Tensor] = field(repr=False)
    """W̄, the weighted average."""
    spread: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """Standard deviation over the records; empty if it was not recorded."""
    gradients: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """Accumulated ``|w ∘ g|``; empty if it was not recorded."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Kind of average, number of records, and other settings."""

    def save(self, path: str | Path) -> None:
        """Write the record as safetensors, atomically.

        Raises
        ------
        RunFolderError
            If the file can't be written.
        """
        tensors = {
            f"{kind} {name}": value.contiguous().cpu()
            for kind, values in self._kinds().items()
            for name, value in values.items()
        }
        write_tensors(path, FORMAT, self.facts, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read a file of :meth:`save`.

        Raises
        ------
        RunFolderError
            If the file is missing, damaged or of another format.
        """
        with open_tensors(path, "trajectory", FORMAT) as (tensors, facts):
            found = cls({}, facts={k: v for k, v in facts.items() if k != "format"})
            for key, value in tensors.items():
                kind, _, name = key.partition(" ")
                found._kinds()[kind][name] = value.float()
        return found

    def check(self, layers: list[Layer]) -> None:
        """Refuse a record of another model.

        Raises
        ------
        LayerError
            If a layer has no record or one of another shape, or if its recorded average has nothing
            in common with its weights.
        """
        for layer in layers:
            average, shape = self.average.get(layer.name), tuple(layer.kind.weight.shape)
            if average is None or tuple(average.shape) != shape:
                there = "nothing" if average is None else f"weights of {tuple(average.shape)}"
                raise LayerError(
                    f"the trajectory has {there} for layer {layer.name!r}, whose weight has shape "
                    f"{shape}; use the trajectory of this model, or exclude the layer"
                )
            own, other = layer.dense.flatten(), layer.kind.matrix(average).flatten().to(layer.dense)
            cosine = float(torch.cosine_similarity(own, other, dim=0))
            if not cosine >= LEAST_COSINE:
                raise LayerError(
                    f"the trajectory is of another model: the average of layer {layer.name!r} has "
                    f"cosine {cosine:.2f} with its weights; record the training of this model"
                )

    def densities(self, rate: float) -> dict[str, float]:
        """Share of weights of each layer that the rule of Systematic Weight Evaluation keeps.

        A weight is pruned if its averaged magnitude is less than ``rate`` standard deviations of
        the magnitudes of its layer (arXiv 2502.17071).

        Parameters
        ----------
        rate : float
            Threshold in standard deviations; not a sparsity.

        Returns
        -------
        dict of str to float
            For the setting ``densities`` of :class:`icbs.Pruner`.
        """
        found = {}
        for name, average in self.average.items():
            size = average.abs()
            found[name] = float((size >= rate * size.std()).double().mean())
        return found

    def _kinds(self) -> dict[str, dict[str, Tensor]]:
        return {"average": self.average, "spread": self.spread, "gradients": self.gradients}
