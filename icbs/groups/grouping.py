"""The groups of a run: sets of groups of one dimension or layer, their gates and their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icbs.errors import LayerError
from icbs.model.gates import ALL_GROUPS, Gates, Part, WidePart
from icbs.model.layer import Layer
from icbs.structure.dimension import Dimension

if TYPE_CHECKING:
    from icbs.groups.budget import Budget
    from icbs.groups.costs import Costs

State = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class GroupSet:
    """Groups of one dimension of the model, or of one layer.

    Groups are numbered from 0 within the set, and so are the gates of its parts.
    """

    name: str
    kind: str
    count: int
    parts: tuple[WidePart, ...]
    """Weights of the groups, layer by layer."""
    floor: int = 1
    """Least number of kept groups."""
    dimension: Dimension | None = None
    """None for groups within a layer, which have no cut."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Groups among which the number of kept ones is fixed."""

    name: str
    members: npt.NDArray[np.int64]
    """Numbers of the groups."""
    floor: int
    """Least number of kept groups, over all of its sets."""
    sets: int
    """Number of sets."""


@dataclass(eq=False)
class Grouping:
    """All groups of a run, numbered set after set, with one gate for each.

    Parameters
    ----------
    sets : sequence of GroupSet
    one_pool : bool
        Whether all groups compete with each other; otherwise each set keeps its own number.
        Sets of kind ``blocks`` always compete.
    """

    sets: Sequence[GroupSet]
    one_pool: bool
    budget: Budget | None = field(default=None, init=False, repr=False)
    """Limit of the cost of the kept groups; None if their number is fixed."""
    costs: dict[str, Costs] = field(default_factory=dict, init=False, repr=False)
    """Costs of the model by quantity."""
    _block: tuple[bytes, Gates] | None = field(default=None, init=False, repr=False)

    @property
    def layers(self) -> list[Layer]:
        """Layers with weights of the groups, each once."""
        found = {part.layer.name: part.layer for own in self.sets for part in own.parts}
        return list(found.values())

    @cached_property
    def count(self) -> int:
        """Number of groups."""
        return sum(own.count for own in self.sets)

    @cached_property
    def spans(self) -> list[slice]:
        """Numbers of the groups of each set."""
        ends = np.cumsum([own.count for own in self.sets])
        return [slice(int(e) - own.count, int(e)) for e, own in zip(ends, self.sets, strict=True)]

    @cached_property
    def set_of(self) -> npt.NDArray[np.int64]:
        """Set of each group, shape (count,)."""
        return np.repeat(np.arange(len(self.sets)), [own.count for own in self.sets])

    @cached_property
    def pools(self) -> list[Pool]:
        """Groups among which the number of kept ones is fixed."""
        by_name: dict[str, list[int]] = {}
        for number, own in enumerate(self.sets):
            apart = own.name if own.kind != "blocks" else own.kind
            by_name.setdefault(ALL_GROUPS if self.one_pool else apart, []).append(number)
        numbers = np.arange(self.count)
        return [
            Pool(
                name,
                np.concatenate([numbers[self.spans[i]] for i in members]),
                sum(self.sets[i].floor for i in members),
                len(members),
            )
            for name, members in by_name.items()
        ]

    @cached_property
    def pool_of(self) -> npt.NDArray[np.int64]:
        """Pool of each group, shape (count,)."""
        found = np.zeros(self.count, dtype=np.int64)
        for number, pool in enumerate(self.pools):
            found[pool.members] = number
        return found

    @cached_property
    def gates(self) -> Gates:
        """One gate for each group, with a label for each pool."""
        blocks = [Gates(own.parts, own.count) for own in self.sets]
        labels = None if len(self.pools) == 1 else torch.from_numpy(self.pool_of)
        found = Gates.joined(blocks, labels)
        found.title = self.sets[0].name if len(self.sets) == 1 else ALL_GROUPS
        return found

    def block(self, numbers: npt.NDArray[np.int64]) -> Gates:
        """Return the gates of some groups, in the given order; the latest result is cached."""
        if len(numbers) == self.count and (numbers == np.arange(self.count)).all():
            return self._limited(self.gates, numbers)
        key = numbers.tobytes()
        if self._block is None or self._block[0] != key:
            self._block = key, self._gates_of(numbers)
        return self._limited(self._block[1], numbers)

    def _limited(self, gates: Gates, numbers: npt.NDArray[np.int64]) -> Gates:
        """Set the limits of a block by the current masks."""
        if self.budget is not None:
            gates.limits = self.budget.limits(self.closed(), numbers)
        return gates

    def _gates_of(self, numbers: npt.NDArray[np.int64]) -> Gates:
        at = torch.full((self.count,), -1, dtype=torch.int64)
        at[torch.from_numpy(numbers)] = torch.arange(len(numbers))
        parts: list[Part] = []
        for part in self.gates.parts:
            assert isinstance(part, WidePart)
            assert part.gate is not None
            gate = at.to(part.gate.device)[part.gate]
            inside = gate >= 0
            if inside.any():
                index = part.index[inside]
                parts.append(WidePart(part.layer, index, gate[inside], columnwise=part.columnwise))
        labels = None
        if self.gates.labels is not None:
            labels = self.gates.labels[torch.from_numpy(numbers)]
        return Gates(parts, len(numbers), labels, self.gates.title)

    def closed(self) -> State:
        """Return 1 for pruned groups and 0 for kept ones, shape (count,).

        Raises
        ------
        LayerError
            If the masks prune a part of a group only.
        """
        try:
            return self.gates.closed()
        except ValueError:
            raise LayerError(
                f"the masks prune parts of groups: {self._partial()} has both pruned and kept "
                "weights; prune all of a group's weights or none"
            ) from None

    def _partial(self) -> str:
        """Name the first group of which a part is pruned, and the layers of that part."""
        pruned, sizes = (np.zeros((len(self.gates.parts), self.count)) for _ in range(2))
        for number, part in enumerate(self.gates.parts):
            assert part.gate is not None
            gate = part.gate.cpu().numpy()
            sizes[number] = np.bincount(gate, minlength=self.count)
            flags = part.layer.pruned[part.index].cpu().numpy()
            pruned[number] = np.bincount(gate, flags, self.count)
        total = pruned.sum(axis=0)
        first = int(np.flatnonzero((total > 0) & (total < sizes.sum(axis=0)))[0])
        number = int(self.set_of[first])
        own = self.sets[number]
        counts = [
            f"{int(pruned[i, first])} of {int(sizes[i, first])} weights of {part.layer.name!r}"
            for i, part in enumerate(self.gates.parts)
            if sizes[i, first]
        ]
        at = first - self.spans[number].start
        return f"group {at} (from 0) of {own.name!r} ({', '.join(counts)} pruned)"

    def close(self, state: State) -> None:
        """Set the masks of all layers: 1 for pruned groups."""
        closed = torch.from_numpy(state.astype(bool))
        for part in self.gates.parts:
            assert part.gate is not None
            pruned = torch.zeros_like(part.layer.pruned)
            pruned[part.index] = closed.to(part.gate.device)[part.gate]
            part.layer.set_mask(pruned)

    def kept(self, state: State | None = None) -> dict[str, Tensor]:
        """Return the kept groups of each set, bool, by name; by default those of the masks."""
        state = self.closed() if state is None else state
        return {
            own.name: torch.from_numpy(state[span] == 0)
            for own, span in zip(self.sets, self.spans, strict=True)
        }

    def state_of(self, masks: Mapping[str, Tensor]) -> State:
        """Return the pruned groups of given masks; the layers are not changed.

        Raises
        ------
        LayerError
            If a mask is missing, has another shape, prunes a part of a group, or weights without
            a group.
        """
        before = self.closed()
        for layer in self.layers:
            if layer.name not in masks:
                raise LayerError(f"masks has none for {layer.name!r}; give one for each layer")
            if tuple(masks[layer.name].shape) != tuple(layer.kind.weight.shape):
                raise LayerError(
                    f"the mask of {layer.name!r} has shape {tuple(masks[layer.name].shape)}; it "
                    f"must have that of the weight, {tuple(layer.kind.weight.shape)}"
                )
        try:
            for layer in self.layers:
                pruned = ~layer.kind.matrix(masks[layer.name]).flatten()
                layer.set_mask(pruned.to(layer.pruned.device))
            found = self.closed()
            total = sum(int(layer.pruned.sum()) for layer in self.layers)
        finally:
            self.close(before)
        sizes = self.gates.total([torch.ones(len(part.index)) for part in self.gates.parts])
        if int(sizes[found == 1].sum()) != total:
            raise LayerError("the masks prune weights that belong to no group")
        return found

    def describe(self, state: State) -> dict[str, tuple[int, int]]:
        """Return the numbers of groups and of kept groups of each set, by name."""
        return {
            own.name: (own.count, int((state[span] == 0).sum()))
            for own, span in zip(self.sets, self.spans, strict=True)
        }
