"""Mask makers of a round: from a trained model and the number of weights that each layer keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.objective import Loss
from icbs.errors import ConfigError
from icbs.model.wrappers import modules_of
from icbs.pruner import Pruner
from icbs.selection.scores import initial_mask

#: ``maker(model, masks, keep)`` returns new masks. The model is trained under ``masks``; ``keep``
#: is the number of weights to keep of each layer.
Maker = Callable[[nn.Module, Mapping[str, Tensor], Mapping[str, int]], dict[str, Tensor]]


_DETERMINED = {"density", "densities", "include", "exclude", "allocation", "constraint", "groups"}
"""Settings of the pruner that a search for tickets determines."""


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
        Settings of the pruner but the densities and layers, such as
        ``passes=0, initial="wanda"``.

    Notes
    -----
    Weights that an earlier round pruned stay pruned. They are 0 in the trained model; where the
    pruner keeps some of them nevertheless, the largest of the others take their places. With
    ``initial="random"`` the initial mask is drawn among the weights that are still kept.

    Raises
    ------
    ConfigError
        For a setting that the search determines, or that is unknown or out of range.
    """
    if own := sorted(_DETERMINED & settings.keys()):
        raise ConfigError(
            f"{', '.join(own)} is determined by the search; give share, shares, include or exclude "
            "to find_ticket"
        )
    Pruner(**settings)
    random, seed = settings.get("initial") == "random", settings.get("seed", 0)
    if random:
        settings = {name: value for name, value in settings.items() if name != "initial"}
    samples = list(batches)

    def make(
        model: nn.Module, masks: Mapping[str, Tensor], keep: Mapping[str, int]
    ) -> dict[str, Tensor]:
        densities = {name: keep[name] / mask.numel() for name, mask in masks.items()}
        pruner = Pruner(include=list(masks), densities=densities, **settings)
        start = _drawn(masks, keep, seed) if random else None
        result = pruner.prune(copy.deepcopy(model), samples, loss, masks=start, progress=False)
        return _nested(model, masks, result.masks, keep)

    return make


def _drawn(masks: Mapping[str, Tensor], keep: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """Draw masks among the weights that are still kept."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, mask in masks.items():
        size = torch.rand(mask.shape, generator=generator).to(mask.device).masked_fill(~mask, -1)
        found[name] = ~initial_mask(size.flatten(1), keep[name], "layer").view(mask.shape)
    return found


@torch.no_grad()
def _nested(
    model: nn.Module,
    before: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    keep: Mapping[str, int],
) -> dict[str, Tensor]:
    """Replace weights outside of the masks before by the largest ones within."""
    modules, found = modules_of(model), {}
    for name, old in before.items():
        mask = masks[name].to(old.device)
        if bool((mask & ~old).any()):
            size = modules[name].get_parameter("weight").abs().masked_fill(~old, -1)
            size = size.masked_fill(mask & old, torch.inf)
            mask = ~initial_mask(size.flatten(1), keep[name], "layer").view(old.shape)
        found[name] = mask
    return found
