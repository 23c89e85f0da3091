"""Layer-wise pruning in the order of execution, each layer on inputs from the pruned ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.data.pytree import tensors
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.layerwise.alps import alps
from icbs.layerwise.compensated_exchange import sparsegpt_exchanged
from icbs.layerwise.execution_order import in_execution_order
from icbs.layerwise.moments import Moments, input_moments
from icbs.layerwise.sparsegpt import sparsegpt
from icbs.layerwise.weight_exchange import exchange_weights
from icbs.model.layer import Layer
from icbs.selection.scores import initial_mask

log = logging.getLogger("icbs")
Method = Literal["magnitude", "wanda", "exchange", "sparsegpt", "alps", "compensated-exchange"]
_UPDATING: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "sparsegpt": sparsegpt,
    "alps": alps,
    "compensated-exchange": sparsegpt_exchanged,
}
"""Methods that change the kept weights of a layer's matrix."""
POSITIONS = 4096
"""Positions of sequences in a forward pass."""
NUMBERS = 1 << 22
"""Entries of floating-point inputs in a forward pass."""


def sweep(
    model: nn.Module,
    layers: Sequence[Layer],
    pieces: Sequence[Samples],
    method: Method,
    config: PrunerConfig,
    *,
    update: bool = True,
    callback: Callable[[int, int], object] | None = None,
) -> None:
    """Prune layer after layer in place, in the order of execution.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    layers : sequence of Layer
        With dense weights.
    pieces : sequence of Samples
        Samples of each forward pass; see :func:`pieces_of`.
    method : {"wanda", "exchange", "sparsegpt", "alps", "compensated-exchange"}
    config : PrunerConfig
        Its ``compare`` and ``pattern`` are used.
    update, callback
        As for :func:`icbs.layerwise.pruning.prune_layerwise`.

    Raises
    ------
    DataError
        If the inputs of a layer are not finite, or singular.
    """
    done = 0
    with torch.no_grad():
        for group, feed in in_execution_order(model, layers, pieces):
            moments = input_moments(group, feed, gram=method != "wanda")
            for layer in group:
                moment = moments[layer.name]
                if not torch.isfinite(moment.total).all():
                    raise DataError(
                        f"the inputs of layer {layer.name!r} are NaN or infinite; check the data, "
                        "or load the model in a wider floating-point type"
                    )
                if not moment.count:
                    log.warning(
                        "no sample reaches %s after pruning the layers before it: it is pruned "
                        "by magnitude",
                        layer.name,
                    )
                if method in _UPDATING:
                    _apply_updating(layer, moment, config, method, update)
                else:
                    keep_best(layer, layer.dense.abs() * moment.norms, config)
                if method == "exchange":
                    _apply_exchange(layer, moment, config)
                done += 1
                if callback is not None:
                    callback(done, len(layers))


def keep_best(layer: Layer, scores: Tensor, config: PrunerConfig) -> None:
    """Set a layer's mask to its weights of largest score."""
    layer.set_mask(initial_mask(scores, layer.num_keep, config.compare, config.pattern))


def _apply_exchange(layer: Layer, moment: Moments, config: PrunerConfig) -> None:
    groups = layer.kind.groups
    parts = zip(
        layer.dense.chunk(groups), layer.pruned.view(layer.shape).chunk(groups), strict=True
    )
    masks = [
        exchange_weights(dense, moment.mean[number], ~pruned, config.pattern)
        for number, (dense, pruned) in enumerate(parts)
    ]
    layer.set_mask(~torch.cat(masks).flatten())


def _apply_updating(
    layer: Layer, moment: Moments, config: PrunerConfig, method: Method, update: bool
) -> None:
    groups, parts = layer.kind.groups, []
    try:
        # Outputs of a group depend on the group's inputs only, and share their Hessian.
        for number, dense in enumerate(layer.dense.chunk(groups)):
            keep = layer.num_keep * (number + 1) // groups - layer.num_keep * number // groups
            parts.append(_UPDATING[method](dense, moment.mean[number], keep, config.pattern))
    except torch.linalg.LinAlgError as error:
        raise DataError(
            f"the second moments of the inputs of layer {layer.name!r} can't be inverted "
            f"({error}); use more samples, or a wider floating-point type"
        ) from error
    weight, mask = (torch.cat(values) for values in zip(*parts, strict=True))
    layer.set_mask(~mask.flatten())
    if update:
        layer.kind.weight.copy_(layer.kind.shaped(weight))


def pieces_of(samples: Samples, size: int | None, device: torch.device) -> list[Samples]:
    """Split samples into parts of ``size``, by default of a few thousand positions."""
    if size is None:
        first = tensors(samples.inputs)[0]
        each = max(1, first[0].numel())
        size = max(1, (NUMBERS if first.is_floating_point() else POSITIONS) // each)
    return [samples[i : i + size].to(device) for i in range(0, len(samples), size)]
