"""Blocks of several layers with one cardinality, which move weights from layer to layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.config.constants import ALLOCATION_FLOOR
from icbs.curvature.passes import Pass
from icbs.model.finding import density_of
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from icbs.selection.block_selection import Tabu, choose_block
from icbs.selection.scores import Score, make_score
from icbs.selection.selector import PerLayer, Selector

TOGETHER = 4
"""Maximum number of layers in a block."""


class SharedBudget(Selector):
    """Blocks of up to four layers, in which only the total of the kept weights is fixed.

    The quadratic model of the loss compares weights of different layers, so that a solver moves
    budget to where it lowers the loss most. Layers are grouped at random in each pass, and so is
    the budget spread over the model. A layer keeps at least a tenth of its share under uniform
    densities, and at least one pruned weight. Layers with a density in ``densities`` keep it.

    Parameters
    ----------
    config : PrunerConfig
    """

    def __init__(self, config: PrunerConfig) -> None:
        self.config = config
        self.score: Score = make_score(config.selection, config)
        self.alone = PerLayer(config)

    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        """Return as many blocks as there are layers, times ``blocks_per_layer``."""
        shared = [x for x in layers if density_of(x.name, x.module, self.config) is None]
        fixed = [x for x in layers if x not in shared]
        blocks = self.alone.select(fixed, pass_info, tabus, generator) if fixed else {}
        order = torch.randperm(len(shared), generator=generator).tolist()
        count = -(-len(shared) // TOGETHER)
        for number in range(count):
            group = [shared[place] for place in sorted(order[number::count])]
            for gates in self._blocks(group, pass_info, tabus, generator):
                name, again = gates.name, 2
                while name in blocks:
                    name, again = f"{gates.name} {again}", again + 1
                blocks[name] = gates
        return blocks

    def _blocks(
        self,
        group: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> Iterator[Gates]:
        """Yield disjoint blocks, each with an equal part of every layer."""
        config = self.config
        assert config.block_size != "all"
        small = config.model_copy(update={"block_size": max(2, config.block_size // len(group))})
        scores = [self.score(layer, pass_info, generator) for layer in group]
        own = [tabus[layer.name] for layer in group]
        # All blocks of the pass may be accepted: together they must not pass the bounds.
        spare = [
            [layer.num_kept - floor(layer, config), layer.size - layer.num_kept - 1]
            for layer in group
        ]
        for _ in range(len(group) * config.blocks_per_layer):
            parts = []
            for place, layer in enumerate(group):
                index = choose_block(layer, scores[place], own[place], small, generator)
                index = _within(layer, index, spare[place])
                own[place] = own[place].without(index)
                if len(index):
                    parts.append(Gates.single(layer, index))
            if not parts:
                return
            gates = Gates.joined(parts)
            if gates.closed().min() == gates.closed().max():
                return  # nothing to exchange
            yield gates


def floor(layer: Layer, config: PrunerConfig) -> int:
    """Return the least number of weights that a layer keeps."""
    return max(1, int(ALLOCATION_FLOOR * round(config.density * layer.size)))


def _within(layer: Layer, index: Tensor, spare: list[int]) -> Tensor:
    """Leave out weights whose move would pass the bounds, and count the others.

    Parameters
    ----------
    layer : Layer
    index : Tensor of int64
        Flat indices, the best of each side first.
    spare : list of int
        Numbers of weights that may be pruned and restored; changed in place.
    """
    pruned = layer.pruned[index]
    kept, restored = index[~pruned][: max(0, spare[0])], index[pruned][: max(0, spare[1])]
    spare[0] -= len(kept)
    spare[1] -= len(restored)
    return torch.cat([restored, kept])
