"""What masks and weights must be before anything is written of them or set in them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from icbs.errors import LayerError


def check_values(what: str, tensor: Tensor) -> None:
    """Refuse a tensor whose values can't be read and set one by one.

    Raises
    ------
    LayerError
        If it lies on the meta device, is quantised, or is not strided.
    """
    if tensor.is_meta:
        raise LayerError(f"{what} lies on the meta device and has no values; load it first")
    if tensor.is_quantized or tensor.layout != torch.strided:
        kind = "quantised" if tensor.is_quantized else str(tensor.layout)
        raise LayerError(f"{what} is {kind}; make it an ordinary dense tensor first")


def check_mask(name: Any, mask: Any) -> None:
    """Refuse a mask that is not a plain tensor of bools, under the name of a layer.

    Raises
    ------
    LayerError
    """
    if not isinstance(name, str):
        raise LayerError(f"masks are given by the names of layers, and {name!r:.80} is not a name")
    if not isinstance(mask, Tensor):
        raise LayerError(f"the mask of {name!r} is {type(mask).__name__}; it must be a tensor")
    if mask.dtype != torch.bool:
        raise LayerError(
            f"the mask of {name!r} is {mask.dtype}; it must be torch.bool, True where a weight "
            "is kept"
        )
    check_values(f"the mask of {name!r}", mask)
