"""A prunable layer: its dense weights as a matrix, and its mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from icbs.errors import LayerError
from icbs.model.kinds import Kind, kind_of


@dataclass
class Layer:
    """A layer of any kind as a matrix (out, in), with its mask.

    The mask determines the weights: ``dense`` where kept, 0 where pruned.
    """

    name: str
    module: nn.Module
    kind: Kind = field(repr=False)
    """Conversion of the module's weights, inputs and outputs to matrices."""
    density: float
    dense: Tensor = field(repr=False)
    """Weights before pruning, shape (out, in), contiguous; never changed."""
    pruned: Tensor = field(repr=False)
    """Which weights are pruned, bool, flat, shape (out · in,)."""

    @classmethod
    def of(cls, name: str, module: nn.Module, density: float) -> Layer:
        """Wrap a module with nothing pruned yet.

        Raises
        ------
        LayerError
            If the module is of a type that can't be pruned.
        """
        kind = kind_of(module)
        if kind is None:
            raise LayerError(
                f"{name!r} is {type(module).__name__}; only {Kind.names} can be pruned"
            )
        dense = kind.matrix(kind.weight).clone(memory_format=torch.contiguous_format)
        pruned = torch.zeros(dense.numel(), dtype=torch.bool, device=dense.device)
        return cls(name, module, kind, density, dense, pruned)

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.dense.numel()

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.dense.shape[0], self.dense.shape[1]

    @property
    def num_keep(self) -> int:
        """Number of weights to keep: density times size, rounded."""
        return round(self.density * self.size)

    @property
    def num_kept(self) -> int:
        """Number of weights that the current mask keeps."""
        return self.size - int(self.pruned.sum())

    @property
    def weight(self) -> Tensor:
        """Current weights, shape (out, in); read-only by convention."""
        return self.kind.matrix(self.kind.weight)

    @property
    def mask(self) -> Tensor:
        """Current mask, bool, True where kept, in the shape of the module's own weight."""
        return self.kind.shaped(~self.pruned.view_as(self.dense)).contiguous()

    def unravel(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows (outputs) and columns (inputs) of flat indices."""
        columns = self.shape[1]
        return index // columns, index % columns

    @torch.no_grad()
    def set_mask(self, pruned: Tensor) -> None:
        """Set the whole mask, flat bool, True where pruned, and the weights accordingly."""
        self.pruned = pruned.clone()
        zero = self.dense.new_zeros(())
        matrix = torch.where(pruned.view_as(self.dense), zero, self.dense)
        self.kind.weight.copy_(self.kind.shaped(matrix))

    @torch.no_grad()
    def set_block(self, index: Tensor, pruned: Tensor) -> None:
        """Set the mask and the weights at flat indices; kept weights get their dense values."""
        self.pruned[index] = pruned
        rows, columns = self.unravel(index)
        values = torch.where(pruned, self.dense.new_zeros(()), self.dense[rows, columns])
        self.kind.weight[self.kind.at(rows, columns)] = values
