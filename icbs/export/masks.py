"""Files of masks: packed bits in safetensors, with names and shapes in the header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from icbs.errors import LayerError
from icbs.export.headers import MasksHeader, size_of
from icbs.export.safetensors_files import open_tensors, write_tensors
from icbs.model.plain import check_mask, check_weight
from icbs.model.wrappers import modules_of

FORMAT, OLDER = "icbs-masks-2", "icbs-masks-1"


def pack_bits(mask: Tensor) -> Tensor:
    """Pack bools, eight to a byte, first bit highest; shape (⌈size/8⌉,), uint8."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pack_bits`.

    Raises
    ------
    ValueError
        If the number of bytes does not match the shape; checked before allocating the mask.
    """
    size = size_of(shape)
    if bits.dtype != torch.uint8 or tuple(bits.shape) != (-(-size // 8),):
        raise ValueError(
            f"a mask of shape {tuple(shape)} takes {-(-size // 8)} bytes, but the file has "
            f"{bits.dtype} of shape {tuple(bits.shape)}"
        )
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool)).view(tuple(shape))


def save_masks(masks: Mapping[str, Tensor], path: str | Path) -> None:
    """Write masks (True = kept) by layer name, bit-packed, atomically.

    The header has the ``shapes`` of the masks, the numbers of weights ``kept``, and a digest.
    Equal masks give equal files, byte for byte.

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
    write_tensors(path, FORMAT, facts, {name: pack_bits(mask) for name, mask in masks.items()})


def load_masks(path: str | Path) -> dict[str, Tensor]:
    """Read a file of :func:`save_masks`.

    Raises
    ------
    RunFolderError
        If the file is missing, damaged, or of another format.
    """
    with open_tensors(path, "mask file", FORMAT, OLDER) as (tensors, header):
        facts = MasksHeader.of(header)
        masks = {name: unpack_bits(tensors[name], shape) for name, shape in facts.shapes.items()}
        for name, kept in facts.kept.items():
            if (found := int(masks[name].sum())) != kept:
                raise ValueError(
                    f"the mask of {name!r} keeps {found} weights, but its header says {kept}"
                )
    return masks


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero the pruned weights of a model, in place.

    To keep them at zero during training, see :func:`icbs.hold_masks`.

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
    """Return each mask's weight, with the mask negated.

    Returns
    -------
    dict of str to (weight, pruned)
        By layer name; ``pruned`` is True where the mask is False, on the weight's device.

    Raises
    ------
    LayerError
        If a layer is missing, has another shape or computes its weight; if its weight is
        quantised or on the meta device; or if a mask is not a plain tensor of bools.
    """
    modules = modules_of(model)
    found = {}
    for name, mask in masks.items():
        check_mask(name, mask)
        module = modules.get(name)
        weight = getattr(module, "weight", None)
        if callable(weight) and not isinstance(weight, Tensor):
            raise LayerError(
                f"layer {name!r} ({type(module).__name__}) is quantised, so that its weight can't "
                "be changed; use the model before its quantisation"
            )
        if module is not None and weight is not None and "weight" not in module._parameters:
            raise LayerError(
                f"layer {name!r} computes its weight (a parametrisation, or torch.nn.utils.prune), "
                "which would overwrite zeros; remove the parametrisation first"
            )
        if not isinstance(weight, Tensor) or weight.shape != mask.shape:
            there = "no weight" if weight is None else f"a weight of shape {tuple(weight.shape)}"
            raise LayerError(
                f"the mask of {name!r} has shape {tuple(mask.shape)}, the model has {there} "
                "there; use the model that the masks belong to"
            )
        if module is not None:
            check_weight(name, module)
        found[name] = (weight, ~mask.to(weight.device))
    return found
