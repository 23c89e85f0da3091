"""Per-sample gradients of all layers, from their stored inputs and output gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icbs.curvature.layer_io import Call
from icbs.errors import MemoryLimitError
from icbs.formatting import byte_size
from icbs.model.layer import Layer
from icbs.recovery.direction import Direction
from icbs.recovery.gradient_rows import GradientRows

Float = npt.NDArray[np.float64]


class StoredGradients:
    """G at the weights of its creation, with the weights of all layers one after the other.

    Parameters
    ----------
    rows : GradientRows
        A row for each sample; its inputs and output gradients are held from now on.
    most : int
        Bytes that may be stored.

    Raises
    ------
    MemoryLimitError
        If they are not enough.
    """

    def __init__(self, rows: GradientRows, most: int) -> None:
        if not rows.hold(most):
            raise MemoryLimitError(
                f"inputs and output gradients of {rows.count} samples need more than "
                f"{byte_size(most)}; take fewer (fisher_samples), or raise max_memory"
            )
        self.rows, self.layers = rows, rows.layers
        self._starts = np.cumsum([0, *(layer.size for layer in self.layers)])

    @property
    def count(self) -> int:
        """Number of samples N."""
        return self.rows.count

    def times(self, vector: Float) -> Float:
        """Return ``G v``, shape (N,)."""
        parts = np.split(vector, self._starts[1:-1])
        direction = Direction(
            {
                layer.name: torch.from_numpy(part).to(layer.dense).view(layer.shape)
                for layer, part in zip(self.layers, parts, strict=True)
            }
        )
        return self._host(self.rows.along(direction))

    def transposed(self, vector: Float) -> Float:
        """Return ``Gᵀ u``, shape (n,)."""
        device = self.layers[0].dense.device
        found = self.rows.combine(torch.from_numpy(vector).to(device), masked=False)
        return self._joined(found.weights)

    def columns(self, index: npt.NDArray[np.int64]) -> Float:
        """Return columns, shape (N, len(index))."""
        found = np.zeros((self.count, len(index)))
        owner = np.searchsorted(self._starts, index, side="right") - 1
        own = {
            layer.name: (number, np.flatnonzero(owner == number))
            for number, layer in enumerate(self.layers)
        }

        def add(layer: Layer, call: Call) -> None:
            number, chosen = own[layer.name]
            if len(chosen):
                flat = torch.from_numpy(index[chosen] - self._starts[number])
                block = self._host(call.columns(*layer.unravel(flat.to(layer.dense.device))))
                found[call.start : call.start + len(block), chosen] += block

        self.rows.run(add)
        return found

    def squares(self) -> Float:
        """Return the sum of the squares of each column, shape (n,)."""
        return self._joined(self.rows.squares(by_position=False)) * self.count

    def _joined(self, matrices: dict[str, Tensor]) -> Float:
        return np.concatenate([self._host(matrices[x.name]).ravel() for x in self.layers])

    @staticmethod
    def _host(tensor: Tensor) -> Float:
        found: Float = tensor.double().cpu().numpy()
        return found
