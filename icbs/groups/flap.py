"""Biases that make up for the mean of pruned activations (FLAP, arXiv 2312.11983, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config.constants import MAX_SAMPLES
from icbs.data.objective import Loss, Objective
from icbs.data.samples import read_samples
from icbs.groups.activations import column_statistics
from icbs.model.finding import layers_named
from icbs.model.modes import evaluation_mode


def add_mean_biases(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    batches: Iterable[Any],
    loss: Loss,
    *,
    dense: nn.Module,
    batch_size: int = 64,
) -> dict[str, Tensor]:
    """Add ``Σ_j W_:j E[X_j]`` over the pruned weights of each layer to its bias, in place.

    The pruned weights then act on the mean of their inputs instead of on nothing. A layer without
    a bias gets one, which the dense model's configuration doesn't know: save such a model by its
    state dict.

    Parameters
    ----------
    model : nn.Module
        The pruned model.
    masks : mapping of str to Tensor of bool
        As in :class:`icbs.Result`.
    batches, loss
        As for :meth:`icbs.Pruner.prune`.
    dense : nn.Module
        The model before pruning, whose weights and activations are used.
    batch_size : int, default 64
        Number of samples in one forward pass.

    Returns
    -------
    dict of str to Tensor, shape (out,)
        What was added to each bias.
    """
    samples = read_samples(batches, MAX_SAMPLES)
    with evaluation_mode(dense) as plain:
        layers = layers_named(plain, list(masks))
        found = column_statistics(plain, layers, Objective(loss), samples, batch_size)
    added = {}
    modules = dict(model.named_modules())
    for layer in layers:
        mean = found[layer.name].mean.view(layer.kind.groups, -1)
        by_row = mean.repeat_interleave(layer.shape[0] // layer.kind.groups, dim=0)
        pruned = ~layer.kind.matrix(masks[layer.name]).to(mean.device)
        change = (layer.dense.double() * pruned * by_row).sum(dim=1).to(layer.dense.dtype)
        module: Any = modules[layer.name]
        with torch.no_grad():
            if module.bias is None:
                module.bias = nn.Parameter(change.clone())
            else:
                module.bias += change
        added[layer.name] = change
    return added
