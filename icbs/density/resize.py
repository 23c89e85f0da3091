"""Masks of one density from those of another: pruned further, or grown; also of groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.data.pytree import call
from icbs.data.samples import Samples
from icbs.groups.density import best_state
from icbs.groups.finding import prepare_groups
from icbs.layerwise.moments import input_moments
from icbs.layerwise.sweep import pieces_of
from icbs.model.finding import density_of, find_layers
from icbs.model.layer import Layer
from icbs.selection.allocation import shared_budget, threshold
from icbs.selection.scores import initial_mask

_KEPT = 1e9
"""Factor of the ranks of kept groups, above that of all costs of a group."""


@torch.no_grad()
def input_norms(
    model: nn.Module, layers: Sequence[Layer], pieces: Iterable[Samples]
) -> dict[str, Tensor]:
    """Return the norms ``‖X_j‖₂`` of the inputs of each layer in the unchanged model.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    layers : sequence of Layer
    pieces : iterable of Samples
        Samples of each forward pass.

    Returns
    -------
    dict of str to Tensor
        Layer name → norms, shape (out, in) without memory for the repeated rows.
    """
    feed = [(piece, _runner(model, piece)) for piece in pieces]
    found = {}
    for name, moments in input_moments(layers, feed, gram=False).items():
        outputs = moments.layer.shape[0] // moments.layer.kind.groups
        norms = moments.total.sqrt() if moments.count else torch.ones_like(moments.total)
        found[name] = norms[:, None].expand(-1, outputs, -1)
    return found


def _runner(model: nn.Module, piece: Samples) -> Callable[[], object]:
    return lambda: call(model, piece.inputs)


def sampled_norms(model: nn.Module, config: PrunerConfig, samples: Samples) -> dict[str, Tensor]:
    """Return :func:`input_norms` for the layers and the number of samples of ``config``."""
    layers = find_layers(model, config)
    pieces = pieces_of(_few(samples, config), None, layers[0].dense.device)
    return input_norms(model, layers, pieces)


def _few(samples: Samples, config: PrunerConfig) -> Samples:
    return samples[: config.samples_of(len(samples))]


def resize_masks(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    config: PrunerConfig,
    norms: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return masks of the density of ``config`` that contain given masks, or lie within them.

    Kept weights rank above all pruned ones, and weights of either side by Wanda's score
    ``|w_ij| ‖X_j‖₂`` (arXiv 2306.11695, equation 1): a sparser mask lies within the given one,
    and a denser one contains it.

    Parameters
    ----------
    model : nn.Module
        The dense model.
    masks : mapping of str to Tensor of bool
        Layer name → mask, True where kept.
    config : PrunerConfig
        The number of kept weights of each layer; under ``allocation="global"`` of all layers
        together, which then share it out as given. ``compare`` is respected.
    norms : mapping of str to Tensor
        See :func:`input_norms`.
    """
    layers = find_layers(model, config)
    ranks = {layer.name: _rank(layer, masks[layer.name], norms[layer.name]) for layer in layers}
    keep = {layer.name: layer.num_keep for layer in layers}
    if config.allocation != "uniform":
        shared = [x for x in layers if density_of(x.name, x.module, config) is None]
        counts = threshold(
            [_relative(ranks[x.name]) for x in shared],
            shared_budget(shared),
            np.ones(len(shared), dtype=np.int64),
            np.array([x.size - 1 for x in shared]),
        )
        keep |= {x.name: int(count) for x, count in zip(shared, counts, strict=True)}
    found = {}
    for layer in layers:
        pruned = initial_mask(ranks[layer.name], keep[layer.name], config.compare)
        found[layer.name] = layer.kind.shaped(~pruned.view(layer.shape)).contiguous()
    return found


def _rank(layer: Layer, mask: Tensor, norms: Tensor) -> Tensor:
    """Rank of each weight within its side, plus the size of the layer if it is kept."""
    scores = layer.dense.abs().double() * norms.reshape(layer.shape).double()
    rank = torch.empty(layer.size, dtype=torch.float64, device=scores.device)
    order = scores.flatten().argsort(stable=True)
    rank[order] = torch.arange(layer.size, dtype=torch.float64, device=scores.device)
    kept = layer.kind.matrix(mask.to(scores.device))
    return rank.view(layer.shape) + layer.size * kept


def _relative(rank: Tensor) -> np.ndarray:
    """Ranks as shares of the layer, comparable between layers, in single precision."""
    return (rank / rank.numel()).flatten().float().cpu().numpy()


def resize_groups(
    model: nn.Module, masks: Mapping[str, Tensor], config: PrunerConfig, samples: Samples
) -> dict[str, Tensor]:
    """Return masks of groups of the density or budget of ``config``, from given masks of groups.

    As :func:`resize_masks`, with the sum of the squared scores of a group's weights as its score.
    The number of kept groups follows the density and the floors; under a budget groups come in the
    order of their rank for their cost.

    Parameters
    ----------
    model : nn.Module
        The dense model, in evaluation mode.
    masks : mapping of str to Tensor of bool
        Layer name → mask, True where kept, that prunes whole groups.
    config : PrunerConfig
        With ``groups``.
    samples : Samples
        For the norms of the layers' inputs.
    """
    grouping = prepare_groups(model, samples, config)
    pieces = pieces_of(_few(samples, config), None, grouping.layers[0].dense.device)
    norms = input_norms(model, grouping.layers, pieces)
    gates = grouping.gates
    squares = []
    for part in gates.parts:
        scores = part.weights.double() * norms[part.layer.name].flatten()[part.index].double()
        squares.append(scores.square())
    state = grouping.state_of(masks)
    rank = np.empty(grouping.count)
    rank[np.argsort(gates.total(squares), kind="stable")] = np.arange(1, grouping.count + 1)
    try:
        grouping.close(best_state(grouping, np.where(state == 0, _KEPT * rank, rank), config))
        return {
            layer.name: layer.kind.shaped(~layer.pruned.view(layer.shape)).clone()
            for layer in grouping.layers
        }
    finally:  # the model is dense again
        grouping.close(np.zeros_like(state))
