"""The layers of a pruned model, from its masks, with checks that masks and weights agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from icbs.errors import DensityWarning, LayerError
from icbs.export.masks import masked_weights
from icbs.model.adapters import check_adapters
from icbs.model.finding import check_shared
from icbs.model.kinds import kind_of
from icbs.model.layer import Layer
from icbs.model.plain import check_writable
from icbs.model.wrappers import modules_of
from problems.warn import warn

log = logging.getLogger("icbs")
_CAUSE = "the mask is of another model, or of another density, or pruned weights have been changed"
_REMEDY = (
    "give the masks that the model was pruned by, or apply them (icbs.apply_masks); or give the "
    "dense model, as dense too if many of its own weights are 0"
)
MOST_ZEROS = 0.25
"""Share of zeros among the kept weights from which on a mask is taken for that of another model,
if the dense weights are not known. Dense weights of few bits have many zeros."""
FEW_ZEROS = 0.01
"""The same share, of weights that are not 0 in the dense model. Without it, more are warned of."""
MOST_PRUNED = 0.5
"""Share of zeros among the pruned weights from which on a model is taken for a pruned one."""


def masked_layers(model: nn.Module, masks: Mapping[str, Tensor]) -> list[Layer]:
    """Return a layer for each mask, in the model's order; the model is unchanged.

    Parameters
    ----------
    model : nn.Module
        Dense or pruned.
    masks : mapping of str to Tensor of bool
        Layer name → mask, True where kept, in the shape of the weight.

    Raises
    ------
    LayerError
        If there are no masks; if a layer is missing, of an unsupported type, quantised, shared
        with another module or not finite, or has another shape.
    """
    if not masks:
        raise LayerError("masks is empty; give the masks that the model is pruned by")
    check_writable(model)
    check_adapters(model)
    masked_weights(model, masks)
    modules = modules_of(model)
    known = {name: module for name, module in modules.items() if kind_of(module) is not None}
    names = [name for name in modules if name in masks]
    layers = []
    try:
        check_shared(model, known, [name for name in names if name in known])
        for name in names:
            kept = float(masks[name].sum()) / masks[name].numel()
            layers.append(Layer.of(name, modules[name], kept))
    except LayerError as error:
        raise LayerError(f"{error} (its mask is to be left out)") from error
    for name, layer in zip(names, layers, strict=True):
        if not torch.isfinite(layer.dense).all():
            raise LayerError(
                f"layer {name!r} has weights that are NaN or infinite; repair the model"
            )
        layer.pruned = ~layer.kind.matrix(masks[name].to(layer.dense.device)).flatten()
    return layers


def check_frozen(layers: Sequence[Layer]) -> None:
    """Log which layers are frozen.

    Raises
    ------
    LayerError
        If all of them are.
    """
    frozen = [layer.name for layer in layers if is_frozen(layer)]
    if len(frozen) == len(layers):
        raise LayerError(
            "the weights of all masked layers are frozen (requires_grad is False), so that none "
            "may move; call model.requires_grad_(True)"
        )
    if frozen:
        log.info("%d layers are frozen and keep their weights: %s", len(frozen), _listed(frozen))


def is_frozen(layer: Layer) -> bool:
    """Whether a layer's weights must not move."""
    return not layer.module.weight.requires_grad


def check_kept(layers: Sequence[Layer], dense: Sequence[Layer] = ()) -> None:
    """Refuse masks that keep mostly zeros: those of another model or density.

    Parameters
    ----------
    layers : sequence of Layer
    dense : sequence of Layer, optional
        The same layers of the dense model, whose zeros don't count.

    Raises
    ------
    LayerError
    """
    for number, layer in enumerate(layers):
        zero = layer.dense.flatten() == 0
        if dense:
            zero &= dense[number].dense.flatten() != 0
        kept = zero[~layer.pruned]
        zeros, most = int(kept.sum()), FEW_ZEROS if dense else MOST_ZEROS
        found = (
            f"{zeros:,} of the {len(kept):,} weights of {layer.name!r} that its mask keeps are 0"
            + (", and not in the dense model" if dense else "")
        )
        if len(kept) and zeros > most * len(kept):
            raise LayerError(
                f"{found}: the mask is of another model, or of another density; give the masks "
                "that the model was pruned by"
            )
        if zeros > FEW_ZEROS * len(kept) and not dense:
            warn(
                f"{found}: if the mask is not the one by which the model was pruned, give that "
                "one; otherwise give the dense model too (dense), and nothing is guessed",
                DensityWarning,
            )


def is_pruned(layers: Sequence[Layer]) -> bool:
    """Whether a model is pruned by its masks already; False for a dense model.

    Raises
    ------
    LayerError
        If it is neither: pruned weights of some layers are 0, or most of those of a layer.
    """
    zeros = {x.name: int((_pruned_values(x) == 0).sum()) for x in layers if x.pruned.any()}
    pruned = {layer.name: int(layer.pruned.sum()) for layer in layers}
    changed = [name for name in zeros if zeros[name] < pruned[name]]
    if not changed:
        return bool(zeros)
    if len(changed) < len(zeros):
        raise LayerError(
            f"pruned weights of {_listed(changed)} are not 0 "
            f"({pruned[changed[0]] - zeros[changed[0]]:,} in the first), and those of other layers "
            f"are: {_CAUSE}; {_REMEDY}"
        )
    for name in changed:
        if zeros[name] > MOST_PRUNED * pruned[name]:
            raise LayerError(
                f"{zeros[name]:,} of the {pruned[name]:,} weights of {name!r} that its mask prunes "
                f"are 0, and the others are not: {_CAUSE}; {_REMEDY}"
            )
    return False


def check_reference(layers: Sequence[Layer], dense: Sequence[Layer]) -> None:
    """Refuse a model with pruned weights other than 0 and the dense model's.

    Parameters
    ----------
    layers, dense : sequence of Layer
        The same layers of the model and of the dense model.

    Raises
    ------
    LayerError
    """
    for layer, other in zip(layers, dense, strict=True):
        values = _pruned_values(layer)
        wrong = (values != 0) & (values != other.dense.flatten()[layer.pruned].to(values))
        if wrong.any():
            raise LayerError(
                f"{int(wrong.sum()):,} weights of {layer.name!r} are changed where its mask prunes "
                "them; apply the masks first (icbs.apply_masks), or give the masks of this model"
            )


def _pruned_values(layer: Layer) -> Tensor:
    return layer.dense.flatten()[layer.pruned]


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
