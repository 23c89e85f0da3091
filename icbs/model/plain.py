"""Checks that weights and masks are plain tensors in memory of their own."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from icbs.errors import LayerError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def storage_problem(tensor: Tensor) -> str | None:
    """Describe why a tensor is not stored as plain numbers in memory; None if it is."""
    if tensor.is_meta:
        return "on the meta device, which holds no values"
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return f"sparse ({tensor.layout})"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    return None


def check_weight(name: str, module: nn.Module) -> None:
    """Refuse a layer without plain floating-point weights in memory of their own.

    Raises
    ------
    LayerError
        Naming the layer and the remedy.
    """
    weight = module._parameters.get("weight")
    if weight is None:
        raise LayerError(
            f"layer {name!r} computes its weight (a parametrisation, or torch.nn.utils.prune); "
            "make it permanent, or exclude the layer"
        )
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise LayerError(
            f"layer {name!r} has no weights yet ({type(module).__name__}); run the model once, "
            "or exclude the layer"
        )
    if weight.is_meta:
        raise LayerError(
            f"layer {name!r} has its weights on the meta device, which holds no values; "
            "load the model onto a real device"
        )
    kind = type(weight.data).__name__
    if kind == "DTensor":
        raise LayerError(
            f"layer {name!r} has weights sharded over processes ({kind}); prune the model "
            "before it is sharded"
        )
    if (problem := storage_problem(weight)) and not weight.is_quantized:
        raise LayerError(
            f"layer {name!r} has weights that are {problem}; make them dense (to_dense()), or "
            "exclude the layer"
        )
    if weight.dtype not in FLOATS or type(weight.data) is not Tensor:
        raise LayerError(
            f"layer {name!r} has quantised weights ({kind}, {weight.dtype}); load the model with "
            "floating-point weights, or exclude it"
        )
    if _overlaps(weight):
        raise LayerError(
            f"layer {name!r} has an expanded weight, whose entries share memory; copy it "
            "(weight.clone()), or exclude the layer"
        )


def _overlaps(tensor: Tensor) -> bool:
    """Whether several entries of a tensor share one place in memory."""
    extent = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < extent:
            return True
        extent += stride * (size - 1)
    return False


def check_writable(model: nn.Module) -> None:
    """Refuse a model with inference tensors, which can't be changed or used for gradients.

    Raises
    ------
    LayerError
    """
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        lazy = nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer
        if not isinstance(tensor, lazy) and tensor.is_inference():
            raise LayerError(
                f"{name!r} of the model was created under torch.inference_mode and can't be "
                "changed; create or load the model outside of it, or under torch.no_grad"
            )


def check_mask(name: str, mask: Tensor) -> None:
    """Refuse a mask that is not a plain tensor of bools, under the name of a layer.

    Raises
    ------
    LayerError
    """
    if not isinstance(name, str):
        raise LayerError(f"masks must be keyed by layer names, and {name!r:.80} is not a name")
    if not isinstance(mask, Tensor):
        found: str | None = type(mask).__name__
    else:
        found = storage_problem(mask) or (str(mask.dtype) if mask.dtype != torch.bool else None)
    if found is None:
        return
    raise LayerError(
        f"the mask of {name!r} is {found}; it must be a dense tensor of torch.bool, True where "
        "a weight is kept"
    )
