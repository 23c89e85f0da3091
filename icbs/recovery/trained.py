"""Trained parameters of a distillation: on the support of a mask, or of low rank within it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from icbs.model.layer import Layer


class Trained(ABC):
    """Tensors that an optimiser updates, and the parameter of the model that they determine.

    Parameters
    ----------
    parameter : Tensor
        Of the model, detached; written by :meth:`write`.
    """

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the optimised tensors and others of the state, by name."""

    @abstractmethod
    def optimised(self) -> list[Tensor]:
        """Return the tensors that the optimiser updates."""

    @abstractmethod
    def accept(self, gradient: Tensor) -> None:
        """Set the gradients of the optimised tensors from that of the parameter."""

    @abstractmethod
    def write(self) -> None:
        """Set the parameter from the optimised tensors."""

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`tensors` returned."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


class Full(Trained):
    """A parameter itself; in half precision, a copy in single precision.

    Parameters
    ----------
    parameter : Tensor
    pruned : Tensor of bool, optional
        Entries that stay 0, in the shape of the parameter.
    """

    def __init__(self, parameter: Tensor, pruned: Tensor | None = None) -> None:
        super().__init__(parameter)
        self.pruned = pruned
        wide = torch.promote_types(parameter.dtype, torch.float32)
        self.value = parameter.to(wide, copy=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return the value in the precision of the optimiser."""
        return {"value": self.value}

    def optimised(self) -> list[Tensor]:
        """Return the value."""
        return [self.value]

    def accept(self, gradient: Tensor) -> None:
        """Set the gradient, 0 at pruned entries, which Adam then leaves at 0."""
        gradient = gradient.to(self.value)
        if self.pruned is not None:
            gradient = gradient.masked_fill(self.pruned, 0)
        self.value.grad = gradient

    @torch.no_grad()
    def write(self) -> None:
        """Copy the value."""
        self.parameter.copy_(self.value)


class LowRank(Trained):
    """``W + M∘(BA)``: a change of rank r (LoRA, arXiv 2106.09685) within the mask M.

    Parameters
    ----------
    layer : Layer
        Its current weights are W, and its mask M.
    rank : int
        r, at most that of the weight.
    generator : torch.Generator
        For the initial A; B is 0, so that the change is 0.
    """

    def __init__(self, layer: Layer, rank: int, generator: torch.Generator) -> None:
        super().__init__(layer.kind.weight)
        self.layer = layer
        self.kept = ~layer.pruned.view(layer.shape)
        wide = torch.promote_types(layer.dense.dtype, torch.float32)
        self.base = layer.weight.to(wide, copy=True)
        outputs, inputs = layer.shape
        rank = min(rank, outputs, inputs)
        drawn = torch.randn(rank, inputs, generator=generator, dtype=torch.float32)
        self.right = (drawn / inputs**0.5).to(self.base)
        self.left = self.base.new_zeros(outputs, rank)

    def tensors(self) -> dict[str, Tensor]:
        """Return W, B and A."""
        return {"base": self.base, "left": self.left, "right": self.right}

    def optimised(self) -> list[Tensor]:
        """Return B and A."""
        return [self.left, self.right]

    def accept(self, gradient: Tensor) -> None:
        """Set the gradients of B and A by the chain rule."""
        matrix = self.layer.kind.matrix(gradient).to(self.base) * self.kept
        self.left.grad = matrix @ self.right.T
        self.right.grad = self.left.T @ matrix

    @torch.no_grad()
    def write(self) -> None:
        """Set the weight."""
        change = (self.left @ self.right).mul_(self.kept)
        self.parameter.copy_(self.layer.kind.shaped(self.base + change))
