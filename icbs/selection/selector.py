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
from icbs.plugins import SCORES
from icbs.selection.block_selection import Tabu, select_block


class Selector(ABC):
    """Selects the blocks of a pass."""

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
    """One block in each layer, of single weights with the best scores.

    Parameters
    ----------
    config : PrunerConfig
        ``selection`` names the score; see :func:`icbs.selection.block_selection.choose_block`.
    """

    def __init__(self, config: PrunerConfig) -> None:
        self.config = config
        self.score = SCORES.get(config.selection)

    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        """Return a block for each layer with movable weights."""
        blocks = {}
        for layer in layers:
            scores = self.score(layer, pass_info, generator)
            gates = select_block(layer, scores, tabus[layer.name], self.config, generator)
            if gates is not None:
                blocks[layer.name] = gates
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
    return WholeModel(config) if config.block_size == "all" else PerLayer(config)
