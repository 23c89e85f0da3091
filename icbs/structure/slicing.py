"""Removal of rows, columns and channels from modules, in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from icbs.structure.matrices import (
    inputs_of,
    is_batch_norm,
    is_convolution,
    is_depthwise,
    is_linear,
    is_transposed,
    outputs_of,
)


def remove_outputs(module: nn.Module, channels: Tensor) -> None:
    """Remove output channels of a linear layer or convolution, with their biases."""
    left = _rest(outputs_of(module), channels)
    _select(module, "weight", 1 if is_transposed(module) else 0, left)
    _select(module, "bias", 0, left)
    _describe(module, "out", len(left))


def remove_inputs(module: nn.Module, channels: Tensor) -> None:
    """Remove input channels of a linear layer or convolution."""
    left = _rest(inputs_of(module), channels)
    _select(module, "weight", 0 if is_transposed(module) else 1, left)
    _describe(module, "in", len(left))


def remove_channels(module: nn.Module, channels: Tensor) -> None:
    """Remove channels of a batch normalisation or of a depthwise convolution."""
    named: Any = module
    if is_batch_norm(module):
        left = _rest(named.num_features, channels)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(module, name, 0, left)
        named.num_features = len(left)
    elif is_depthwise(module):
        left = _rest(named.groups, channels)
        _select(module, "weight", 0, left)
        _select(module, "bias", 0, left)
        named.groups = named.in_channels = named.out_channels = len(left)
    else:
        raise TypeError(f"{type(module).__name__} has no channels to remove")


def _rest(count: int, channels: Tensor) -> Tensor:
    keep = torch.ones(count, dtype=torch.bool)
    keep[channels.cpu()] = False
    return keep.nonzero().flatten()


def _select(module: nn.Module, name: str, axis: int, left: Tensor) -> None:
    """Keep some entries of a parameter or buffer along an axis; None stays None."""
    old = getattr(module, name, None)
    if old is None:
        return
    values = old.detach().index_select(axis, left.to(old.device))
    # Memory layouts such as that of Conv1D, (in, out), are kept contiguous.
    new: Tensor = values.contiguous()
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(module, name, new)


def _describe(module: nn.Module, side: str, count: int) -> None:
    """Put the module's own numbers right."""
    named: Any = module
    if is_transposed(module):
        setattr(named, "nx" if side == "in" else "nf", count)
    elif is_linear(module):
        setattr(named, f"{side}_features", count)
    elif is_convolution(module):
        setattr(named, f"{side}_channels", count)
