"""Blocks of a model, replayed on cached hidden states of the pruned and of the dense model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.samples import Samples
from icbs.errors import LayerError
from icbs.layerwise.chain import Chain, candidates, find_chain, first_output, is_inside
from icbs.model.layer import Layer


@dataclass(frozen=True)
class Block:
    """Consecutive modules of a chain, the first of which has masked layers."""

    name: str
    first: int
    last: int
    """Indices in the chain, both included."""


@dataclass
class HiddenStates:
    """A chain of one model, with hidden states of parts of the samples before a block."""

    chain: Chain
    blocks: Sequence[Block]
    states: list[Tensor] = field(default_factory=list)
    """One per part of the samples."""
    position: int = 0
    """Number of blocks that the states have passed."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: nn.Module,
        names: Sequence[str],
        blocks: Sequence[Block],
        parts: Sequence[Samples],
    ) -> HiddenStates:
        """Run a model on samples and keep the inputs of the first block."""
        chain = Chain(list(names), [model.get_submodule(name) for name in names])
        chain.capture(model, parts)
        found = cls(chain, blocks)
        for part, states in enumerate(chain.inputs):
            found.states.append(found._pass(part, 0, blocks[0].first, states))
        chain.inputs = []
        return found

    def run(self, part: int, first: int, last: int, states: Tensor) -> Tensor:
        """Return hidden states after blocks ``first … last``, given those before ``first``."""
        return self._pass(part, self.blocks[first].first, self.blocks[last].last + 1, states)

    @torch.no_grad()
    def advance(self, position: int) -> None:
        """Pass the states through blocks until ``position`` of them are passed."""
        while self.position < position:
            number = self.position
            self.states = [
                self.run(part, number, number, states) for part, states in enumerate(self.states)
            ]
            self.position += 1

    def _pass(self, part: int, start: int, stop: int, states: Any) -> Any:
        for number in range(start, stop):
            args, named = self.chain.rest[part][number]
            # A copy, for modules that change their input in place.
            states = first_output(self.chain.blocks[number](states.clone(), *args, **named))
        return states


@torch.no_grad()
def find_blocks(
    model: nn.Module, layers: Sequence[Layer], one: Samples
) -> tuple[list[str], list[Block]]:
    """Return the names of a chain of modules, and its blocks.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    layers : sequence of Layer
        The masked layers.
    one : Samples
        A single sample.

    Raises
    ------
    LayerError
        If the model has no chain of modules that can be run one by one.
    """
    chain = find_chain(model, candidates(model, layers, mixed=True), layers, one)
    if chain is None:
        raise LayerError(
            "blocks needs modules that run one after the other, each on the output of the one "
            "before (a ModuleList or Sequential), and the model has none; choose another method"
        )
    starts = [
        number
        for number, name in enumerate(chain.names)
        if any(is_inside(layer.name, name) for layer in layers)
    ]
    stops = [*starts[1:], len(chain.names)]
    blocks = [
        Block(chain.names[start], start, stop - 1)
        for start, stop in zip(starts, stops, strict=True)
    ]
    return chain.names, blocks
