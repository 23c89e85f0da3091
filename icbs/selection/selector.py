"""Selectors of the gates in the blocks of a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch

from icbs.config import PrunerConfig
from icbs.config.constraints import group_of
from icbs.curvature.passes import Pass
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from icbs.selection.block_selection import Tabu, select_block
from icbs.selection.scores import Score, make_score


class Selector(ABC):
    """Selects the blocks of a pass."""

    score: Score | None = None
    """Score of the weights, if the selection uses one."""

    @abstractmethod
    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        """Return the blocks of a pass by name.

        Parameters
        ----------
        layers : sequence of Layer
            Layers due in this pass.
        pass_info : Pass
            Mean gradients at the selection point.
        tabus : mapping of str to Tabu
            Tabu lists by layer name.
        generator : torch.Generator
        """


class PerLayer(Selector):
    """Blocks of single weights with the best scores in each layer, one or more.

    Parameters
    ----------
    config : PrunerConfig
        ``selection`` names the score; see :func:`icbs.selection.block_selection.choose_block`.
        ``blocks_per_layer`` blocks are disjoint, the best weights in the first.
    """

    def __init__(self, config: PrunerConfig) -> None:
        self.config = config
        self.score: Score = make_score(config.selection, config)

    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        """Return the blocks of each layer with movable weights."""
        blocks = {}
        for layer in layers:
            scores, tabu = self.score(layer, pass_info, generator), tabus[layer.name]
            for number in range(self.config.blocks_per_layer):
                gates = select_block(layer, scores, tabu, self.config, generator)
                if gates is None or (number and gates.closed().min() == gates.closed().max()):
                    break  # no weight is left, or none to exchange it with
                blocks[f"{layer.name} {number + 1}" if number else layer.name] = gates
                if number + 1 < self.config.blocks_per_layer:
                    tabu = tabu.without(gates.parts[0].index)
        return blocks


class WholeModel(Selector):
    """One block of all weights that may move, in all layers.

    Each layer keeps its number of weights, or, with ``allocation="global"``, the model as a
    whole. Tabu lists are ignored.

    Parameters
    ----------
    config : PrunerConfig
    """

    def __init__(self, config: PrunerConfig) -> None:
        self.config = config

    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        """Return one block."""
        blocks, labels, groups = [], [], 0
        place = {name: number for number, name in enumerate(tabus)}  # the model's own order
        for layer in sorted(layers, key=lambda layer: place[layer.name]):
            index = tabus[layer.name].free.nonzero().squeeze(1)
            if not len(index):
                continue
            blocks.append(Gates.single(layer, index))
            own = group_of(index, layer.shape[1], self.config.constraint)
            labels.append(own + groups)
            groups = int(labels[-1].max()) + 1
        if not blocks:
            return {}
        one = self.config.allocation == "global" and self.config.constraint == "layer"
        return {"all": Gates.joined(blocks, None if one else torch.cat(labels))}


def make_selector(config: PrunerConfig) -> Selector:
    """Create the selector for the settings."""
    if config.allocation == "loss":
        from icbs.selection.shared_budget import SharedBudget  # imports this module

        return SharedBudget(config)
    return WholeModel(config) if config.block_size == "all" else PerLayer(config)
