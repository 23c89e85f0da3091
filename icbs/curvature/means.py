"""Mean gradients of a pass: of all weights, or of blocks selected midway."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icbs import parallel
from icbs.curvature.layer_io import Call
from icbs.errors import DataError
from icbs.model.gates import Gates, Part
from icbs.model.layer import Layer


class Means:
    """Gradients and squared inputs, summed over samples.

    Parameters
    ----------
    layers : sequence of Layer
    counted : Tensor of bool, shape (N, T), optional
        Positions that are not padding.
    """

    def __init__(self, layers: Sequence[Layer], counted: Tensor | None) -> None:
        self.counted = counted
        self.gradients: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        for layer in layers:
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            shape = layer.shape if layer.kind.groups > 1 else layer.shape[1:]
            self.gradients[layer.name] = torch.zeros_like(layer.dense, dtype=wide)
            self.squares[layer.name] = layer.dense.new_zeros(shape, dtype=wide)

    def add(self, layer: Layer, call: Call) -> None:
        """Add a call's samples."""
        counted = self.counted
        if counted is not None:
            counted = counted[call.start : call.start + call.samples]
        self.gradients[layer.name] += call.gradient_sum()
        self.squares[layer.name] += call.squares(counted)

    def mean_gradients(self, count: int) -> dict[str, Tensor]:
        """Turn the sums over ``count`` samples, of all processes, into means, in place.

        Raises
        ------
        DataError
            If one is not finite.
        """
        parallel.all_reduce_(*self.gradients.values(), *self.squares.values())
        for name, gradient in self.gradients.items():
            check_finite(name, gradient)
            gradient /= count
        return self.gradients


class BlockMeans:
    """Gradients of the weights of selected blocks, summed over samples."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[Part, Tensor]]] = defaultdict(list)
        self._sums: dict[int, list[tuple[str, Tensor]]] = defaultdict(list)

    def select(self, blocks: Mapping[str, Gates]) -> None:
        """Allocate sums for these blocks."""
        for gates in blocks.values():
            for part in gates.parts:
                name, dense = part.layer.name, part.layer.dense
                wide = torch.promote_types(dense.dtype, torch.float32)
                total = dense.new_zeros(len(part.index), dtype=wide)
                self._parts[name].append((part, total))
                self._sums[id(gates)].append((name, total))

    def add(self, layer: Layer, call: Call) -> None:
        """Add a call's samples."""
        for part, total in self._parts.get(layer.name, ()):
            total += call.sum_of(part)

    def mean_gradients(self, count: int) -> dict[int, list[Tensor]]:
        """Turn the sums over ``count`` samples, of all processes, into means.

        Returns
        -------
        dict of int to list of Tensor, shape (m,)
            One tensor for each part, by ``id`` of the block.

        Raises
        ------
        DataError
            If one is not finite.
        """
        parallel.all_reduce_(*(total for parts in self._sums.values() for _, total in parts))
        found: dict[int, list[Tensor]] = defaultdict(list)
        for block, parts in self._sums.items():
            for name, total in parts:
                check_finite(name, total / count)
                found[block].append(total / count)
        return dict(found)


def check_finite(name: str, gradient: Tensor) -> None:
    """Refuse a gradient that is not finite.

    Raises
    ------
    DataError
    """
    if not torch.isfinite(gradient).all():
        raise DataError(
            f"the gradient of layer {name!r} is NaN or infinite; check the loss and the "
            "data, or use a wider floating-point type"
        )
