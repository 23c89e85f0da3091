"""Gates: sets of weights that are pruned or restored together.

A gate multiplies the weights of its set: by 1 if they are kept, by 0 if they are pruned. Usually
a gate has a single weight; a neuron, a head, a channel or a whole layer is a gate with many
weights, possibly of several layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icbs.model.layer import Layer
from icbs.model.limits import Limits

Float = npt.NDArray[np.float64]
JOINED = " + "
"""Between the names of the layers of one block."""
ALL_GROUPS = "all groups"
"""Name of a block with groups of several dimensions."""


@dataclass(frozen=True, eq=False)
class Part:
    """Weights of one layer that belong to the gates of a block."""

    layer: Layer
    index: Tensor
    """Flat indices of the weights, shape (m,)."""
    gate: Tensor | None = None
    """Gate of each weight, shape (m,); None if consecutive weights have consecutive gates."""
    first: int = 0
    """Gate of the first weight if :attr:`gate` is None."""

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Rows (outputs) and columns (inputs) of the weights."""
        return self.layer.unravel(self.index)

    @property
    def weights(self) -> Tensor:
        """Values of the weights with open gates, shape (m,)."""
        return self.layer.dense[self.places]

    @property
    def visited(self) -> Tensor:
        """Flat indices of the weights that stand for the part on a tabu list."""
        return self.index

    def of(self, gates: Tensor) -> Tensor:
        """Expand one value per gate to one value per weight, along the last dimension."""
        if self.gate is not None:
            return gates[..., self.gate]
        return gates[..., self.first : self.first + len(self.index)]


@dataclass(frozen=True, eq=False)
class WidePart(Part):
    """Many weights of one layer in few gates, whose gradients are only used in sums by gate."""

    columnwise: bool = False
    """Whether all weights of an input have the same gate."""

    @property
    def weights(self) -> Tensor:
        """Values of the weights with open gates, shape (m,)."""
        return self.layer.dense.flatten()[self.index]

    @property
    def visited(self) -> Tensor:
        """Flat index of the first weight of each gate of the part."""
        return self.representatives[0]

    @cached_property
    def representatives(self) -> tuple[Tensor, Tensor]:
        """Flat index of the first weight of each gate of the part, and the gates."""
        assert self.gate is not None
        order = self.gate.argsort(stable=True)
        gates = self.gate[order]
        first = torch.ones_like(gates, dtype=torch.bool)
        first[1:] = gates[1:] != gates[:-1]
        return self.index[order[first]], gates[first]

    @cached_property
    def columns(self) -> tuple[Tensor, Tensor]:
        """Inputs (columns) of the weights and their gates, each input once, if columnwise."""
        assert self.gate is not None
        row = self.index < self.layer.shape[1]
        return self.index[row], self.gate[row]


@dataclass(frozen=True)
class Change:
    """Weights of one layer that are pruned or restored."""

    layer: Layer
    index: Tensor
    """Flat indices, shape (m,)."""
    pruned: Tensor
    """True for weights that are pruned, False for weights that are restored; shape (m,)."""

    @property
    def difference(self) -> Tensor:
        """Difference of each weight, shape (m,)."""
        dense = self.layer.dense[self.layer.unravel(self.index)]
        return torch.where(self.pruned, -dense, dense)

    def apply(self) -> None:
        """Write mask and weights."""
        self.layer.set_block(self.index, self.pruned)

    def undo(self) -> None:
        """Restore mask and weights exactly."""
        self.layer.set_block(self.index, ~self.pruned)


class Gates:
    """The n gates of a block.

    Parameters
    ----------
    parts : sequence of Part
        Without repeated weights. All weights of a gate are pruned, or all are kept. Parts of one
        layer are joined into one.
    count : int
        Number of gates n.
    labels : Tensor of int64, shape (n,), optional
        Group of each gate; the number of pruned gates of each group is fixed. None for one
        group.
    title : str, optional
        Name of the block; by default the names of its layers.

    Raises
    ------
    ValueError
        If there is no gate, or a gate has no weight. :meth:`closed` also raises it if some
        weights of a gate are pruned and others are kept.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        count: int,
        labels: Tensor | None = None,
        title: str | None = None,
    ) -> None:
        if not count or not parts:
            raise ValueError("a block needs at least one gate")
        by_layer: dict[int, list[Part]] = {}
        for part in parts:
            by_layer.setdefault(id(part.layer), []).append(part)
        self.parts = tuple(_joined(own) for own in by_layer.values())
        self.count, self.labels, self.title = count, labels, title
        self.limits: Limits | None = None
        """Budget instead of fixed numbers of pruned gates."""
        empty = self.total([torch.ones(len(part.index)) for part in self.parts]) == 0
        if empty.any():
            raise ValueError(f"gate {int(empty.argmax())} of {count} has no weight")

    @classmethod
    def single(cls, layer: Layer, index: Tensor, labels: Tensor | None = None) -> Gates:
        """Return one gate for each weight of a layer at flat indices."""
        return cls([Part(layer, index)], len(index), labels)

    @classmethod
    def of_sets(cls, layer: Layer, sets: Sequence[Tensor], labels: Tensor | None = None) -> Gates:
        """Return one gate for each set of flat indices into a layer."""
        sizes = torch.tensor([len(members) for members in sets])
        gate = torch.repeat_interleave(torch.arange(len(sets)), sizes).to(layer.dense.device)
        return cls([Part(layer, torch.cat(list(sets)), gate)], len(sets), labels)

    @classmethod
    def joined(cls, blocks: Sequence[Gates], labels: Tensor | None = None) -> Gates:
        """Return the gates of several blocks in order, in one group unless labels are given."""
        parts, first = [], 0
        for block in blocks:
            for part in block.parts:
                gate = None if part.gate is None else part.gate + first
                parts.append(replace(part, gate=gate, first=part.first + first))
            first += block.count
        return cls(parts, first, labels)

    def __len__(self) -> int:
        return self.count

    @property
    def layers(self) -> list[Layer]:
        """Layers of the gates, each once."""
        return [part.layer for part in self.parts]

    @property
    def name(self) -> str:
        """The title, or the names of the layers."""
        return self.title or JOINED.join(layer.name for layer in self.layers)

    def closed(self) -> npt.NDArray[np.uint8]:
        """Return 1 for closed gates (with pruned weights) and 0 for others, shape (n,)."""
        pruned = self.total([part.layer.pruned[part.index].double() for part in self.parts])
        if all(part.gate is None for part in self.parts):
            return pruned.astype(np.uint8)
        sizes = self.total([torch.ones(len(part.index)).double() for part in self.parts])
        if ((pruned != 0) & (pruned != sizes)).any():
            raise ValueError(f"some gates of {self.name} have both pruned and kept weights")
        return (pruned != 0).astype(np.uint8)

    def total(self, values: Sequence[Tensor]) -> Float:
        """Sum one value per weight over each gate, in float64 on the host.

        Parameters
        ----------
        values : sequence of Tensor, shape (m,)
            One tensor for each part.

        Returns
        -------
        array, shape (n,)
        """
        sums = np.zeros(self.count)
        for part, value in zip(self.parts, values, strict=True):
            wide = value.double().cpu().numpy()
            if part.gate is None:
                sums[part.first : part.first + len(wide)] = wide
            else:
                sums += np.bincount(part.gate.cpu().numpy(), wide, self.count)
        return sums

    def add_columns(self, number: int, columns: Tensor, into: Tensor) -> None:
        """Add the columns of a part's weights to those of their gates.

        Parameters
        ----------
        number : int
            Number of the part.
        columns : Tensor, shape (any, m)
        into : Tensor, shape (any, n)
            Changed in place.
        """
        part = self.parts[number]
        if part.gate is None:
            into[:, part.first : part.first + len(part.index)] += columns
        else:
            into.index_add_(1, part.gate, columns)

    def changes(self, gates: npt.NDArray[np.int64], closed: npt.NDArray[np.bool_]) -> list[Change]:
        """Return the changes of weights when some gates are closed or opened.

        Parameters
        ----------
        gates : array of int, shape (moved,)
            Numbers of the gates that move.
        closed : array of bool, shape (moved,)
            True for gates that are closed.
        """
        found = []
        for part in self.parts:
            device = part.index.device
            if part.gate is None:
                inside = (gates >= part.first) & (gates < part.first + len(part.index))
                at = torch.from_numpy(gates[inside] - part.first).to(device)
                sides = torch.from_numpy(closed[inside]).to(device)
                change = Change(part.layer, part.index[at], sides)
            else:
                side = torch.full((self.count,), -1, dtype=torch.int8)
                side[torch.from_numpy(gates)] = torch.from_numpy(closed).to(torch.int8)
                of = side.to(device)[part.gate]
                moved = of >= 0
                change = Change(part.layer, part.index[moved], of[moved] == 1)
            if len(change.index):
                found.append(change)
        return found

    def of_layer(self, layer: Layer) -> Iterator[tuple[int, Part]]:
        """Yield the parts in a layer with their numbers."""
        for number, part in enumerate(self.parts):
            if part.layer is layer:
                yield number, part


def _joined(parts: list[Part]) -> Part:
    """Join parts of one layer into one."""
    if len(parts) == 1:
        return parts[0]
    gates = [
        part.first + torch.arange(len(part.index), device=part.index.device)
        if part.gate is None
        else part.gate
        for part in parts
    ]
    index = torch.cat([part.index for part in parts])
    wide = [part for part in parts if isinstance(part, WidePart)]
    if len(wide) == len(parts):
        columnwise = all(part.columnwise for part in wide)
        return WidePart(parts[0].layer, index, torch.cat(gates), columnwise=columnwise)
    return Part(parts[0].layer, index, torch.cat(gates))
