"""Layers in the order of computation, each with the inputs that the pruned ones before give.

Most models are a chain of equal blocks. The inputs of the first are computed once, and
hidden states are then carried from block to block, so that the cost is linear in depth. What
lies outside of the chain, or a model without one, takes a forward pass for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import nn

from icbs.data.samples import Samples
from icbs.layerwise.chain import (
    Chain,
    Stop,
    candidates,
    find_chain,
    run_until_stopped,
    within,
)
from icbs.model.calls import reach
from icbs.model.layer import Layer

Feed = list[tuple[Samples, Callable[[], object]]]
"""For each piece of the samples, what runs it through the layers in question."""
FEW = 2
"""Samples run one by one, to see whether all take the same way."""


def walk(
    model: nn.Module, layers: Sequence[Layer], pieces: Sequence[Samples]
) -> Iterator[tuple[list[Layer], Feed]]:
    """Yield groups of layers in the order in which they run, with a feed for each.

    A feed runs the data through the layers of the group with the model as it is then, so
    that what is done to a group is seen by the groups that follow.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, without gradients (and :func:`icbs.model.modes.without_cache`).
    layers : sequence of Layer
    pieces : sequence of Samples
        What is run at a time.

    Raises
    ------
    DataError
        If no sample reaches a layer.
    LayerError
        If a layer can't be pruned as it is used.
    """
    found = candidates(model, layers)
    starts = {chain.names[0]: chain.blocks[0] for chain in found}
    first = pieces[0]
    singles = [first[i : i + 1] for i in range(min(FEW, len(first)))]
    reached = reach(model, layers, singles, [first[FEW:], *pieces[1:]], watch=starts)
    chain = find_chain(model, found, layers, singles[0])
    order = {name: number for number, name in enumerate(reached.order)}
    ranked = sorted(layers, key=lambda layer: order[layer.name])
    names = chain.names if chain is not None else []
    begin = order[names[0]] if names else len(order)
    outside = [x for x in ranked if not any(within(x.name, name) for name in names)]
    for layer in outside:
        if order[layer.name] < begin:
            yield [layer], _passes(model, pieces, layer.module, reached.calls[layer.name])
    if chain is not None:
        chain.capture(model, pieces)
        for number, name in enumerate(names):
            group = [layer for layer in ranked if within(layer.name, name)]
            if group:
                yield group, _steps(chain, number, pieces)
            for i in range(len(pieces)):
                chain.inputs[i] = chain.run(number, i)
    for layer in outside:
        if order[layer.name] > begin:
            yield [layer], _passes(model, pieces, layer.module, reached.calls[layer.name])


def _steps(chain: Chain, number: int, pieces: Sequence[Samples]) -> Feed:
    """Run one block of the chain, piece by piece."""
    return [(piece, partial(chain.run, number, i)) for i, piece in enumerate(pieces)]


def _passes(
    model: nn.Module, pieces: Sequence[Samples], module: nn.Module, calls: int | None
) -> Feed:
    """Forward passes that end when a module has run as often as it does, where that is known."""

    def run(piece: Samples) -> Callable[[], None]:
        def thunk() -> None:
            left = calls

            def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                nonlocal left
                if left is not None:
                    left -= 1
                    if not left:
                        raise Stop

            handle = module.register_forward_hook(hook)
            try:
                run_until_stopped(model, piece)
            finally:
                handle.remove()

        return thunk

    return [(piece, run(piece)) for piece in pieces]
