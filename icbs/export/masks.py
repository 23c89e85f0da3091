"""Masks as files: bits packed into safetensors, with names and shapes in its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from icbs.errors import LayerError
from icbs.export.headers import MasksHeader, size_of
from icbs.export.reading import opened
from icbs.export.writing import write
from icbs.model.plain import check_mask, check_weight
from icbs.model.wrappers import modules_of

FORMAT, OLDER = "icbs-masks-2", "icbs-masks-1"


def pack(mask: Tensor) -> Tensor:
    """Pack bools, eight to a byte, first bit highest; shape (⌈size/8⌉,), uint8."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pack`.

    Raises
    ------
    ValueError
        If the bits are not as many as the shape takes; nothing of that shape is allocated.
    """
    size = size_of(shape)
    if bits.dtype != torch.uint8 or tuple(bits.shape) != (-(-size // 8),):
        raise ValueError(
            f"a mask of shape {tuple(shape)} takes {-(-size // 8)} bytes, the file has "
            f"{bits.dtype} of shape {tuple(bits.shape)}"
        )
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool)).view(tuple(shape))


def save_masks(masks: Mapping[str, Tensor], path: str | Path) -> None:
    """Write masks (True = kept) by layer name, bit-packed, atomically.

    The header holds each layer's ``shapes`` and number of weights ``kept``, and a digest of
    everything. Equal masks make equal files, byte for byte.

    Raises
    ------
    LayerError
        If a mask is not a plain tensor of bools.
    RunFolderError
        If the file can't be written.
    """
    for name, mask in masks.items():
        check_mask(name, mask)
    facts = {
        "shapes": {name: list(mask.shape) for name, mask in masks.items()},
        "kept": {name: int(mask.sum()) for name, mask in masks.items()},
    }
    write(path, FORMAT, facts, {name: pack(mask) for name, mask in masks.items()})


def load_masks(path: str | Path) -> dict[str, Tensor]:
    """Read what :func:`save_masks` wrote.

    Raises
    ------
    RunFolderError
        If the file is missing, damaged, or of another kind.
    """
    with opened(path, "mask file", FORMAT, OLDER) as (tensors, header):
        facts = MasksHeader.of(header)
        masks = {name: unpack(tensors[name], shape) for name, shape in facts.shapes.items()}
        for name, kept in facts.kept.items():
            if int(masks[name].sum()) != kept:
                raise ValueError(f"the mask of {name!r} does not keep the {kept} that it should")
    return masks


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero the pruned weights of a model, in place.

    To keep them at zero while the others are trained, see :func:`icbs.hold_masks`.

    Parameters
    ----------
    model : nn.Module
    masks : mapping of str to Tensor of bool
        Layer name → mask, True where a weight is kept, in the shape of its weight.

    Raises
    ------
    LayerError
        If a layer is missing or has another shape.
    """
    for weight, pruned in masked_weights(model, masks).values():
        weight.masked_fill_(pruned, 0)


def masked_weights(
    model: nn.Module, masks: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair each mask with the weight that it belongs to.

    Returns
    -------
    dict of str to (weight, pruned)
        By layer name; ``pruned`` is the mask turned round, on the weight's device.

    Raises
    ------
    LayerError
        If a layer is missing, has another shape or computes its weight, if its weight is
        quantised or has no values (the meta device), or a mask is not a plain tensor of bools.
    """
    modules = modules_of(model)
    found = {}
    for name, mask in masks.items():
        check_mask(name, mask)
        module = modules.get(name)
        weight = getattr(module, "weight", None)
        if module is not None and weight is not None and "weight" not in module._parameters:
            raise LayerError(
                f"layer {name!r} computes its weight (a parametrisation, or torch.nn.utils.prune), "
                "so that zeros in it would not stay; remove that first"
            )
        if not isinstance(weight, Tensor) or weight.shape != mask.shape:
            there = "nothing" if weight is None else tuple(weight.shape)
            raise LayerError(
                f"the mask of {name!r} has shape {tuple(mask.shape)}, the model has {there} "
                "there; use the model that the masks were made for"
            )
        if module is not None:
            check_weight(name, module)
        found[name] = (weight, ~mask.to(weight.device))
    return found
