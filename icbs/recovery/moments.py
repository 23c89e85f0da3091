"""Second moments of a layer's inputs in the pruned and in the dense model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from icbs.model.layer import Layer


class InputMoments:
    """Sums of ``x xᵀ`` and ``x x⁰ᵀ`` over positions, by group of inputs.

    Inputs x of the pruned and x⁰ of the dense model are counted from a shift, the mean of the
    first positions, so that the variance of inputs with large means is not lost in rounding.

    Parameters
    ----------
    groups, width : int
        Groups of inputs, and inputs in a group.
    shifted : bool
        Whether there is a shift; otherwise it is 0.
    like : Tensor
        Of the device and type of the sums.
    """

    def __init__(self, groups: int, width: int, *, shifted: bool, like: Tensor) -> None:
        self.shifted, self.groups = shifted, groups
        self.count = 0
        """Number of positions."""
        self.pruned = like.new_zeros(groups, width, width)
        """``Σ x xᵀ``, shape (groups, in, in)."""
        self.cross = like.new_zeros(groups, width, width)
        """``Σ x x⁰ᵀ``, shape (groups, in, in)."""
        self.sums = like.new_zeros(2, groups, width)
        """``Σ x`` and ``Σ x⁰``."""
        self.shifts = like.new_zeros(2, groups, width)

    def add(self, pruned: Tensor, dense: Tensor) -> None:
        """Add the features of some positions, both of shape (positions, groups · in)."""
        pair = [x.to(self.sums.dtype).unflatten(1, (self.groups, -1)) for x in (pruned, dense)]
        if self.shifted and not self.count and len(pruned):
            self.shifts = torch.stack([x.mean(dim=0) for x in pair])
        x, y = ((t - s).transpose(0, 1) for t, s in zip(pair, self.shifts, strict=True))
        self.count += len(pruned)
        self.pruned.baddbmm_(x.transpose(1, 2), x)
        # The features are the same until a layer before this one is pruned.
        self.cross.baddbmm_(x.transpose(1, 2), y)
        self.sums += torch.stack([x.sum(dim=1), y.sum(dim=1)])

    @property
    def means(self) -> Tensor:
        """Means of x and x⁰, shape (2, groups, in)."""
        return self.shifts + self.sums / max(1, self.count)


@dataclass
class NormalEquations:
    """Normal equations of a layer, by group of inputs."""

    gram: Tensor
    """``Σ xxᵀ``, of centred inputs if the bias may move, shape (groups, in, in)."""
    sides: Tensor
    """Right-hand sides without ridge, shape (groups, out / groups, in)."""
    dense: Tensor
    """Dense weights W⁰, shape (groups, out / groups, in)."""

    def ridged(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Return H and the right-hand sides with a ridge.

        Parameters
        ----------
        ridge : float
            λ as a share of the mean of the diagonal of ``Σ xxᵀ``.

        Returns
        -------
        hessian : Tensor, shape (groups, in, in)
        sides : Tensor, shape (groups, out / groups, in)
        """
        hessian = self.gram.clone()
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        weight = ridge * diagonal.clamp(min=0).mean(dim=1, keepdim=True)
        diagonal += weight
        return hessian, self.sides + weight.unsqueeze(2) * self.dense


@dataclass
class LayerMoments:
    """Moments of a layer's inputs, and of its outputs in the dense model."""

    inputs: InputMoments
    """May be shared with other layers that have the same inputs."""
    dense: Tensor
    """Dense weights W⁰ by group, shape (groups, out / groups, in)."""
    bias: Tensor | None
    """Dense bias, shape (groups, out / groups), if the bias may move."""
    squares: Tensor
    """``Σ (W⁰ x⁰)²`` with x⁰ from its shift, shape (groups, out / groups)."""

    @classmethod
    def of(cls, layer: Layer, inputs: InputMoments, bias: Tensor | None) -> LayerMoments:
        """Start with no positions; ``bias`` is that of the dense model, shape (out,)."""
        groups = layer.kind.groups
        dense = layer.dense.to(inputs.sums.dtype).unflatten(0, (groups, -1))
        if bias is not None:
            bias = bias.detach().to(dense.dtype).unflatten(0, (groups, -1))
        return cls(inputs, dense, bias, torch.zeros_like(dense[:, :, 0]))

    def some(self, outputs: slice) -> LayerMoments:
        """Return the moments for some outputs of each group; to be read when all are added."""
        bias = None if self.bias is None else self.bias[:, outputs]
        return replace(
            self, dense=self.dense[:, outputs], bias=bias, squares=self.squares[:, outputs]
        )

    def add_outputs(self, dense: Tensor) -> None:
        """Add the dense features of some positions, shape (positions, groups · in)."""
        features = dense.to(self.dense.dtype).unflatten(1, (self.inputs.groups, -1))
        centred = (features - self.inputs.shifts[1]).transpose(0, 1)
        self.squares += (centred @ self.dense.transpose(1, 2)).square().sum(dim=1)

    @cached_property
    def products(self) -> Tensor:
        """``W⁰Cᵀ`` with ``C = Σ x x⁰ᵀ``; to be read when all positions are added."""
        return self.dense @ self.inputs.cross.transpose(1, 2)

    def equations(self) -> NormalEquations:
        """Return the normal equations of the layer's least squares.

        Minimising ``Σ ‖W⁰x⁰ + b⁰ - Wx - b‖² + λ‖W - W⁰‖²`` gives ``W H = W⁰Cᵀ + λW⁰`` with
        ``H = Σ xxᵀ + λI`` and ``C = Σ x x⁰ᵀ``. Where the bias b may move, as the weight of a
        constant input without ridge, it is eliminated: the moments are those of centred inputs.
        """
        gram, sides = self.inputs.pruned, self.products
        if self.bias is not None:
            x, y = self.inputs.sums
            n = max(1, self.inputs.count)
            gram = gram - x.unsqueeze(2) * x.unsqueeze(1) / n
            sides = sides - _times(self.dense, y).unsqueeze(2) * x.unsqueeze(1) / n
        return NormalEquations(gram, sides, self.dense)

    def best_bias(self, weight: Tensor) -> Tensor | None:
        """Return the optimal bias for weights by group; None if it may not move."""
        if self.bias is None:
            return None
        pruned, dense = self.inputs.means
        return self.bias + _times(self.dense, dense) - _times(weight, pruned)

    def error(self, weight: Tensor, bias: Tensor | None) -> float:
        """Return the squared error of the outputs, divided by that of the best constant output.

        Without a bias it is divided by the sum of squares of the outputs. NaN without positions.

        Parameters
        ----------
        weight : Tensor, shape (groups, out / groups, in)
        bias : Tensor, shape (groups, out / groups), or None
        """
        found = self.inputs
        x, y = _times(weight, found.sums[0]), _times(self.dense, found.sums[1])
        total = self.squares
        own = ((weight @ found.pruned) * weight).sum(dim=2)
        both = (weight * self.products).sum(dim=2)
        error = total - 2 * both + own
        if self.bias is not None and bias is not None:
            offset = self.bias + _times(self.dense, found.shifts[1])
            offset = offset - bias - _times(weight, found.shifts[0])
            error = error + 2 * offset * (y - x) + found.count * offset.square()
            total = total - y.square() / max(1, found.count)
        if not found.count:
            return float("nan")
        scale = float(total.double().sum())
        return max(0.0, float(error.double().sum())) / max(scale, 1e-30)


def _times(weight: Tensor, vector: Tensor) -> Tensor:
    """Multiply weights by group with a vector by group, shape (groups, out / groups)."""
    return (weight @ vector.unsqueeze(2)).squeeze(2)
