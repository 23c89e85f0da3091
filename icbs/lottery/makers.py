"""Mask makers of a round: from a trained model and the number of weights that each layer keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.objective import Loss
from icbs.model.wrappers import modules_of
from icbs.pruner import Pruner
from icbs.selection.scores import initial_mask

#: ``maker(model, masks, keep)`` returns new masks. The model is trained under ``masks``; ``keep``
#: is the number of weights to keep of each layer.
Maker = Callable[[nn.Module, Mapping[str, Tensor], Mapping[str, int]], dict[str, Tensor]]


@torch.no_grad()
def magnitude(
    model: nn.Module, masks: Mapping[str, Tensor], keep: Mapping[str, int]
) -> dict[str, Tensor]:
    """Keep the largest of the weights that are still kept (arXiv 1803.03635, section 2)."""
    modules, found = modules_of(model), {}
    for name, mask in masks.items():
        size = modules[name].get_parameter("weight").abs().masked_fill(~mask, -1)
        pruned = initial_mask(size.flatten(1), keep[name], "layer")
        found[name] = ~pruned.view(mask.shape)
    return found


def with_pruner(batches: Iterable[Any], loss: Loss, **settings: Any) -> Maker:
    """Make masks by :class:`icbs.Pruner`, on a copy of the model.

    Parameters
    ----------
    batches, loss
        As for :meth:`icbs.Pruner.prune`.
    **settings
        Settings of the pruner but the densities, such as ``passes=0, initial="wanda"``.
    """
    samples = list(batches)

    def make(
        model: nn.Module, masks: Mapping[str, Tensor], keep: Mapping[str, int]
    ) -> dict[str, Tensor]:
        densities = {name: keep[name] / mask.numel() for name, mask in masks.items()}
        pruner = Pruner(include=list(masks), densities=densities, **settings)
        return pruner.prune(copy.deepcopy(model), samples, loss, progress=False).masks

    return make
