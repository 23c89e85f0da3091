"""Scores of groups from the activations that their readers receive, in forward passes only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icbs.data.objective import Objective
from icbs.data.positions import counted_positions
from icbs.data.pytree import first_argument
from icbs.data.samples import Samples
from icbs.groups.grouping import Grouping
from icbs.groups.scores import GroupInformation
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer

Float = npt.NDArray[np.float64]


@dataclass
class ColumnStatistics:
    """Sums over the inputs of a layer (columns of its matrix), by sample and position."""

    count: float
    total: Tensor
    squares: Tensor
    zeros: Tensor

    @classmethod
    def empty(cls, layer: Layer) -> ColumnStatistics:
        """Return sums of nothing."""
        width = layer.shape[1] * layer.kind.groups
        zeros = torch.zeros(width, dtype=torch.float64, device=layer.dense.device)
        return cls(0.0, zeros, zeros.clone(), zeros.clone())

    def add(self, features: Tensor) -> None:
        """Add features, shape (positions, columns)."""
        wide = features.double()
        self.count += len(wide)
        self.total += wide.sum(dim=0)
        self.squares += wide.square().sum(dim=0)
        self.zeros += (features == 0).sum(dim=0)

    @property
    def mean(self) -> Tensor:
        """Mean of each column."""
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        """Variance of each column (unbiased), at least 0."""
        spread = self.squares - self.total.square() / self.count
        return (spread / max(1.0, self.count - 1)).clamp(min=0)

    @property
    def zero_share(self) -> Tensor:
        """Share of exact zeros in each column."""
        return self.zeros / self.count


def column_statistics(
    model: nn.Module,
    layers: Sequence[Layer],
    objective: Objective,
    samples: Samples,
    batch_size: int,
) -> dict[str, ColumnStatistics]:
    """Return statistics of the inputs of each layer, without padding.

    Parameters
    ----------
    model, layers, objective
        The model in evaluation mode, and its layers.
    samples : Samples
    batch_size : int
        Number of samples in one forward pass.
    """
    found = {layer.name: ColumnStatistics.empty(layer) for layer in layers}
    device = layers[0].dense.device
    for start in range(0, len(samples), batch_size):
        piece = samples[start : start + batch_size].to(device)
        counted = counted_positions(piece)
        with _watched(layers, found, len(piece), counted), torch.no_grad():
            objective.run(model, piece.inputs)
    return found


@contextmanager
def _watched(
    layers: Sequence[Layer],
    found: Mapping[str, ColumnStatistics],
    samples: int,
    counted: Tensor | None,
) -> Iterator[None]:
    kinds = {layer.name: layer.kind for layer in layers}

    def after(name: str, args: Any, named: Any, output: Tensor) -> None:
        features = kinds[name].features(first_argument(args, named), output.shape, samples)
        if counted is not None and counted.shape == features.shape[:2]:
            features = features[counted]
        found[name].add(features.reshape(-1, features.shape[-1]))

    with watch_calls({layer.name: layer.module for layer in layers}, after=after):
        yield


def _statistics(information: GroupInformation) -> dict[str, ColumnStatistics]:
    context = information.context
    count = min(context.num_samples, len(context.pool))
    return column_statistics(
        context.model,
        context.layers,
        context.objective,
        context.pool[:count],
        context.plan.batch_size,
    )


def _summed(grouping: Grouping, by_layer: Mapping[str, Tensor]) -> Float:
    """Sum values of the weights of each layer, shape (out, in), over the groups."""
    return grouping.gates.total(
        [by_layer[part.layer.name].flatten()[part.index] for part in grouping.gates.parts]
    )


def _by_weight(layer: Layer, columns: Tensor) -> Tensor:
    """Expand one value per column to the weights that it multiplies, shape (out, in)."""
    parts = columns.view(layer.kind.groups, -1)
    return parts.repeat_interleave(layer.shape[0] // layer.kind.groups, dim=0)


def apoz(information: GroupInformation) -> Float:
    """Share of the activations that are not zero: 1 - APoZ (Hu et al. 2016, arXiv 1607.03250).

    The average percentage of zeros of a unit is taken over samples and positions, of the
    activations that its readers receive. Units that are always zero have the score 0: removing
    them leaves the outputs unchanged, bit for bit.
    """
    grouping = information.grouping
    found = _statistics(information)
    shares = {
        layer.name: _by_weight(layer, 1 - found[layer.name].zero_share) for layer in grouping.layers
    }
    ones = {name: torch.ones_like(share) for name, share in shares.items()}
    return _summed(grouping, shares) / _summed(grouping, ones)


def flap(information: GroupInformation) -> Float:
    """``Σ_j Var(X_j) ‖W_:j‖²`` over the columns of a group (FLAP, arXiv 2312.11983, section 3).

    Fluctuation of the reader's output that the group causes: a group whose activations are
    constant is replaced by a bias (:func:`icbs.groups.flap.add_mean_biases`). Scores are
    standardised within each set, so that sets can be compared.
    """
    grouping = information.grouping
    found = _statistics(information)
    values = {
        layer.name: _by_weight(layer, found[layer.name].variance) * layer.dense.double().square()
        for layer in grouping.layers
    }
    scores = _summed(grouping, values)
    if len(grouping.pools) == 1 and len(grouping.sets) > 1:
        for span in grouping.spans:
            own = scores[span]
            scores[span] = (own - own.mean()) / (own.std() or 1.0)
    return scores
