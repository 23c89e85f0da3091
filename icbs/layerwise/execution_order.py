"""Layers in the order of execution, with functions that run the samples through them.

Most models are a chain of equal blocks. The inputs of the first block are computed once, and
hidden states are passed from block to block, so that the cost is linear in depth. Layers
outside of the chain need one forward pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import nn

from icbs.data.samples import Samples
from icbs.layerwise.chain import (
    Chain,
    StopForward,
    candidates,
    find_chain,
    is_inside,
    run_until_stopped,
)
from icbs.model.calls import reach
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer

Feed = list[tuple[Samples, Callable[[], object]]]
"""Parts of the samples, each with a function that runs it through a group of layers."""
FEW = 2
"""Samples run one by one, to find out whether all run the same layers."""


def in_execution_order(
    model: nn.Module, layers: Sequence[Layer], pieces: Sequence[Samples], *, fixed: bool = False
) -> Iterator[tuple[list[Layer], Feed]]:
    """Yield groups of layers in the order of execution, each with its feed.

    A feed runs the samples through the layers of a group with the current weights, so that
    changes of a group affect the inputs of later groups.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, without gradients (and :func:`icbs.model.modes.without_cache`).
    layers : sequence of Layer
    pieces : sequence of Samples
        Samples of each forward pass.
    fixed : bool, default False
        No weights are changed, so that a block that a feed has run to its end does not run again
        for the inputs of the next.

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
    outside = [x for x in ranked if not any(is_inside(x.name, name) for name in names)]
    for layer in outside:
        if order[layer.name] < begin:
            yield [layer], _passes(model, pieces, layer.module, reached.calls[layer.name])
    if chain is not None:
        chain.capture(model, pieces)
        for number, name in enumerate(names):
            group = [layer for layer in ranked if is_inside(layer.name, name)]
            runs = [_Replay(chain, number, i, fixed) for i in range(len(pieces))]
            if group:
                yield group, list(zip(pieces, runs, strict=True))
            for i, run in enumerate(runs):
                chain.inputs[i] = run() if run.output is None else run.output
    for layer in outside:
        if order[layer.name] > begin:
            yield [layer], _passes(model, pieces, layer.module, reached.calls[layer.name])


class _Replay:
    """Run of one block of a chain for a part of the samples; keeps its output if it is fixed."""

    def __init__(self, chain: Chain, number: int, piece: int, fixed: bool) -> None:
        self._run = partial(chain.run, number, piece)
        self._fixed = fixed
        self.output: Any = None

    def __call__(self) -> Any:
        output = self._run()
        if self._fixed:
            self.output = output
        return output


def _passes(
    model: nn.Module, pieces: Sequence[Samples], module: nn.Module, calls: int | None
) -> Feed:
    """Return a feed of forward passes that end after the last of a module's ``calls``."""

    def run(piece: Samples) -> None:
        left = calls

        def after(*_: Any) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if not left:
                    raise StopForward

        with watch_calls({0: module}, after=after):
            run_until_stopped(model, piece)

    return [(piece, partial(run, piece)) for piece in pieces]
