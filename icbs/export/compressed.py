"""Compressed files of pruned models: one bit a weight, and the values of kept weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from icbs.errors import LayerError
from icbs.export.headers import CompressedHeader
from icbs.export.masks import pack_bits, unpack_bits
from icbs.export.safetensors_files import open_tensors, write_tensors
from icbs.model.plain import check_mask, storage_problem

FORMAT, OLDER = "icbs-compressed-2", "icbs-compressed-1"


def save_compressed(
    state: Mapping[str, Tensor], masks: Mapping[str, Tensor], path: str | Path
) -> int:
    """Write a state dict with each masked weight as the bits of its mask and its kept values.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of the pruned model. Tied weights (tensors in the same memory) are written
        once.
    masks : mapping of str to Tensor of bool
        Layer name → mask, in the shape of its weight.
    path : path

    Returns
    -------
    int
        Size of the file in bytes.

    Raises
    ------
    LayerError
        If a masked layer is missing, has another shape, or is not zero where it is pruned; if a
        tensor is quantised, sparse, or on the meta device.
    RunFolderError
        If the file can't be written.
    """
    for name, mask in masks.items():
        check_mask(name, mask)
        _check_masked(name, state.get(f"{name}.weight"), mask)
    shapes, same, arrays = {}, {}, {}
    seen: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise LayerError(
                f"{key!r} of the state is {type(tensor).__name__} instead of a tensor; remove it "
                "from the state, and save it elsewhere"
            )
        if problem := storage_problem(tensor):
            raise LayerError(f"{key!r} of the state is {problem}; load the model's weights first")
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            same[key] = seen[place]
            continue
        seen[place] = key
        name, _, part = key.rpartition(".")
        if part != "weight" or name not in masks:
            arrays[key] = tensor.detach().cpu().contiguous()
        else:
            mask = masks[name]
            shapes[key] = list(mask.shape)
            arrays[f"{key}:bits"] = pack_bits(mask)
            arrays[f"{key}:values"] = tensor.detach().cpu()[mask.cpu()]
    write_tensors(path, FORMAT, {"masked": shapes, "same": same}, arrays)
    return Path(path).stat().st_size


def load_compressed(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a file of :func:`save_compressed`; all values are bit-identical.

    Returns
    -------
    state : dict of str to Tensor
        For ``model.load_state_dict``.
    masks : dict of str to Tensor of bool
        Layer name → mask.

    Raises
    ------
    RunFolderError
        If the file is missing, damaged, or of another format.
    """
    with open_tensors(path, "compressed model", FORMAT, OLDER) as (arrays, header):
        facts, masks = CompressedHeader.of(header), {}
        for key, shape in facts.masked.items():
            mask = unpack_bits(arrays.pop(f"{key}:bits"), shape)
            values = arrays.pop(f"{key}:values")
            if tuple(values.shape) != (int(mask.sum()),) or key in arrays:
                raise ValueError(
                    f"{key!r} has {values.numel()} values for {int(mask.sum())} weights, or "
                    "occurs twice"
                )
            whole = values.new_zeros(mask.shape)
            whole[mask] = values
            arrays[key] = whole
            masks[key.removesuffix(".weight")] = mask
        if twice := facts.same.keys() & arrays.keys():
            raise ValueError(f"{min(twice)!r} is tied but has its own values")
        state = arrays | {key: arrays[other] for key, other in facts.same.items()}
    return state, masks


def _check_masked(name: str, weight: Tensor | None, mask: Tensor) -> None:
    if weight is None or weight.shape != mask.shape:
        found = "no weight" if weight is None else f"a weight of shape {tuple(weight.shape)}"
        raise LayerError(
            f"the mask of {name!r} has shape {tuple(mask.shape)}, the state has {found} there; "
            "use the model that the masks belong to"
        )
    if problem := storage_problem(weight):
        raise LayerError(f"the weight of {name!r} is {problem}; load the model's weights first")
    if weight[~mask.to(weight.device)].any():
        raise LayerError(f"layer {name!r} is not zero where it is pruned; apply the masks first")
