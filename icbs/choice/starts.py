"""Masks from elsewhere as the start of a run, checked against the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from icbs.constraints import Pattern
from icbs.errors import LayerError
from icbs.layers.layer import Layer
from icbs.layers.plain import check_mask


def check_masks(
    masks: Mapping[str, Tensor], layers: Sequence[Layer], pattern: Pattern | None = None
) -> None:
    """Refuse starting masks that are not one for each layer, of its shape and density.

    Parameters
    ----------
    masks : mapping of str to Tensor of bool
        Layer name → mask, True where the weight is kept, in the shape of its weight.
    layers : sequence of Layer
        The layers to prune.
    pattern : Pattern, optional
        N:M that each mask must follow.

    Raises
    ------
    LayerError
        Naming the layer and the remedy.
    """
    names = [layer.name for layer in layers]
    if absent := [name for name in names if name not in masks]:
        raise LayerError(
            f"masks has none for {_listed(absent)}; give one for each layer to prune, "
            "or exclude these layers"
        )
    if unknown := [name for name in masks if name not in names]:
        raise LayerError(
            f"masks has {_listed(unknown)}, which are no layers to prune; leave them out, "
            "or include these layers"
        )
    for layer in layers:
        mask = masks[layer.name]
        check_mask(layer.name, mask)
        shape = tuple(layer.kind.weight.shape)
        if tuple(mask.shape) != shape:
            raise LayerError(
                f"the mask of {layer.name!r} has shape {tuple(mask.shape)}; it must have that "
                f"of the weight, {shape}"
            )
        kept = int(mask.sum())
        if kept != layer.num_keep:
            raise LayerError(
                f"the mask of {layer.name!r} keeps {kept} of {layer.size} weights and density "
                f"{layer.density:g} asks for {layer.num_keep}; set "
                f"densities={{{layer.name!r}: {kept / layer.size:.6g}}}"
            )
        if pattern is None:
            continue
        runs = layer.kind.matrix(mask).reshape(-1, pattern.run)
        if (runs.sum(dim=1) != pattern.keep).any():
            raise LayerError(
                f"the mask of {layer.name!r} has runs that don't keep {pattern}; "
                "use masks made for that constraint"
            )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
