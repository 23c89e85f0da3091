"""A prunable layer: its dense weights as a matrix, and its mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from icbs.errors import LayerError
from icbs.model.kinds import Kind, kind_of, known_types


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
    """Weights with all gates open, shape (out, in), contiguous: those before pruning, or of the
    last :meth:`replace_weights`; never changed in place."""
    pruned: Tensor = field(repr=False)
    """Mask of pruned weights, bool, flat, shape (out · in,)."""
    _original: Tensor | None = field(default=None, init=False, repr=False)
    """The weights before the first replacement."""

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
                f"{name!r} is {type(module).__name__}; only {known_types()} can be pruned"
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
    def replaced(self) -> bool:
        """Whether the weights have been replaced since the start of the run."""
        return self._original is not None

    @property
    def original(self) -> Tensor:
        """Dense weights at the start of the run, shape (out, in)."""
        return self.dense if self._original is None else self._original

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

    @torch.no_grad()
    def replace_weights(self, matrix: Tensor) -> None:
        """Replace the values of the weights; the mask stays.

        Parameters
        ----------
        matrix : Tensor, shape (out, in)
            Values of weights with open gates, copied.
        """
        if matrix.shape != self.dense.shape:
            raise LayerError(
                f"new weights of {self.name!r} have shape {tuple(matrix.shape)}; they must have "
                f"{tuple(self.dense.shape)}"
            )
        values = matrix.to(self.dense)  # of the same type, on the same device
        if not torch.isfinite(values).all():
            raise LayerError(f"new weights of {self.name!r} have NaN or infinite values")
        if self._original is None:
            self._original = self.dense
        self.dense = values.clone(memory_format=torch.contiguous_format)
        self.set_mask(self.pruned)

    def restore_weights(self) -> None:
        """Restore the weights before the first replacement; the mask stays."""
        if self._original is not None:
            self.dense, self._original = self._original, None
            self.set_mask(self.pruned)
