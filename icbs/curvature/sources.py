"""Curvature of the loss on a block of weights, by several sources.

The gate of weight i multiplies its dense value w⁰_i, so that a curvature with respect to
gates carries ``w⁰_i w⁰_j``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.model.layer import Layer


@dataclass
class Distortion:
    """``½‖(W - W⁰)X‖²/T``, the error of a layer's output, about its current mask.

    What Wanda and SparseGPT make small: no labels and no backward pass enter it, and its
    minimum is the dense layer.
    """

    gradient: Tensor
    """With respect to the block's weights, shape (b,); 0 where nothing is pruned."""
    matrix: Tensor
    """Second derivatives with respect to the block's gates, shape (b, b)."""


@dataclass
class Curvature:
    """Curvature ``C`` of the loss with respect to the gates of a block's weights."""

    factor: Tensor | None = None
    """F of shape (N, b) with ``C = FᵀF``, or None where :attr:`matrix` is given."""
    matrix: Tensor | None = None
    """C of shape (b, b); with neither there is no model of the loss."""
    distortion: Distortion | None = None
    """The layer's own error, instead of the loss or beside it."""


Source = Callable[[Layer, Tensor], Curvature]
"""Curvature of the block of a layer at given flat indices."""


def fisher(layer: Layer, index: Tensor, gradients: Tensor, count: float) -> Curvature:
    """``C = AᵀA/N`` with ``A = w⁰ ∘ G``: second moment of the per-sample gate gradients.

    Parameters
    ----------
    layer : Layer
    index : Tensor of int64, shape (b,)
    gradients : Tensor, shape (any, b)
        Per-sample gradients G of the block's weights; written to.
    count : float
        N.
    """
    rows, columns = layer.unravel(index)
    weights = layer.dense[rows, columns].to(gradients.dtype)
    return Curvature(factor=gradients.mul_(weights / count**0.5))


def hessian(model: nn.Module, objective: Objective, samples: Samples) -> Source:
    """Exact second derivatives with respect to the gates of a block, by autograd.

    Costs b backward passes: for small blocks, and as the oracle of the Fishers.
    """

    def curvature(layer: Layer, index: Tensor) -> Curvature:
        rows, columns = layer.unravel(index)
        dense = layer.dense[rows, columns]
        current = layer.kind.weight
        place = layer.kind.at(rows, columns)
        gates = (~layer.pruned[index]).to(dense.dtype)
        # Beside an adapter it has another name in the model.
        path = next(name for name, m in model.named_modules() if m is layer.module)

        def mean_loss(gates: Tensor) -> Tensor:
            weight = current.index_put(place, gates * dense)
            replaced = {f"{path}.weight": weight}
            inputs = samples.inputs
            args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
            if isinstance(inputs, dict):
                outputs = functional_call(model, replaced, (), inputs)
            else:
                outputs = functional_call(model, replaced, args)
            return objective.mean(outputs, samples.targets)

        # Fused attention has no second derivatives.
        with sdpa_kernel(SDPBackend.MATH):
            matrix = torch.autograd.functional.hessian(mean_loss, gates)
        return Curvature(matrix=(matrix + matrix.T) / 2)

    return curvature


def check_twice_differentiable(
    model: nn.Module, layer: Layer, objective: Objective, one: Samples
) -> None:
    """Try the second derivative of a sample's loss, with respect to one weight.

    Raises
    ------
    DataError
        If some operation of the model or the loss has none.
    """
    first = torch.zeros(1, dtype=torch.int64, device=layer.dense.device)
    try:
        hessian(model, objective, one)(layer, first)
    except RuntimeError as error:
        raise DataError(
            f"curvature='exact' needs second derivatives, and the model or the loss has none "
            f"({str(error).splitlines()[0]}); use attn_implementation='eager' for models of "
            "transformers, or another curvature"
        ) from error
