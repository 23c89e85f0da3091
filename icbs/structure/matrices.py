"""Inputs and outputs of the modules that multiply by a matrix."""

from __future__ import annotations

import sys

from torch import nn


def is_transposed(module: nn.Module) -> bool:
    """Whether a module is ``Conv1D`` of transformers: linear, with a weight (in, out)."""
    # Not imported: a model with such a layer has loaded the library already.
    transformers = sys.modules.get("transformers.pytorch_utils")
    return transformers is not None and isinstance(module, transformers.Conv1D)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is linear, with its channels last."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a convolution of each channel with a filter of its own."""
    return (
        isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and module.groups == module.in_channels == module.out_channels
        and module.groups > 1
    )


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is a convolution in which each output reads all inputs."""
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups == 1


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def inputs_of(module: nn.Module) -> int:
    """Return the number of input channels of a linear layer or convolution; 0 for others."""
    if is_transposed(module):
        return int(module.get_parameter("weight").shape[0])
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.in_channels if is_convolution(module) else 0  # type: ignore[return-value]


def outputs_of(module: nn.Module) -> int:
    """Return the number of output channels of a linear layer or convolution; 0 for others."""
    if is_transposed(module):
        return int(module.get_parameter("weight").shape[1])
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if is_convolution(module) else 0  # type: ignore[return-value]


def channel_axis(module: nn.Module, dims: int) -> int:
    """Return the axis of channels in inputs and outputs with a number of dimensions."""
    return dims - 1 if is_linear(module) else min(1, dims - 1)


def channels_of(module: nn.Module, role: str) -> int:
    """Return the number of channels that a module has in a dimension; 0 where it has none.

    Parameters
    ----------
    module : nn.Module
    role : {"readers", "writers", "between"}
    """
    if role == "readers":
        return inputs_of(module)
    if role == "writers":
        return outputs_of(module)
    if is_batch_norm(module):
        return int(module.num_features)  # type: ignore[arg-type]
    return int(module.groups) if is_depthwise(module) else 0  # type: ignore[arg-type]
