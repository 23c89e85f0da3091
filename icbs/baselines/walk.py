"""Layers in the order of computation, each with the inputs that the pruned ones before give.

Most models are a chain of equal blocks. The inputs of the first are computed once, and
hidden states are then carried from block to block, so that the cost is linear in depth. What
lies outside of the chain, or a model without one, takes a forward pass for each layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from icbs.data.samples import Samples
from icbs.data.trees import call
from icbs.errors import DataError
from icbs.layers.layer import Layer

Feed = list[tuple[Samples, Callable[[], object]]]
"""For each piece of the samples, what runs it through the layers in question."""


@dataclass
class Chain:
    """Blocks of which each takes the output of the one before as its first argument."""

    names: list[str]
    blocks: list[nn.Module]
    inputs: list[Any] = field(default_factory=list)
    """First argument of the next block, by piece."""
    rest: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = field(default_factory=list)
    """Other arguments, by piece and block; they don't depend on the hidden states."""

    def run(self, number: int, piece: int) -> Any:
        """Output of a block on a piece, given the current inputs."""
        args, named = self.rest[piece][number]
        # A copy, for blocks that change their input in place.
        return _first(self.blocks[number](self.inputs[piece].clone(), *args, **named))


def walk(
    model: nn.Module, layers: Sequence[Layer], pieces: Sequence[Samples]
) -> Iterator[tuple[list[Layer], Feed]]:
    """Yield groups of layers in the order in which they run, with a feed for each.

    A feed runs the data through the layers of the group with the model as it is then, so
    that what is done to a group is seen by the groups that follow.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, without gradients (and :func:`icbs.layers.modes.without_cache`).
    layers : sequence of Layer
    pieces : sequence of Samples
        What is run at a time.

    Raises
    ------
    DataError
        If a layer does not run.
    """
    chain, order, runs = _explore(model, layers, pieces[0][:1])
    for layer in layers:
        if not runs[layer.name]:
            raise DataError(
                f"layer {layer.name!r} did not run in the forward pass; add it to exclude"
            )
    ranked = sorted(layers, key=lambda layer: order.index(layer.name))
    names = chain.names if chain is not None else []
    first = order.index(names[0]) if names else len(order)
    outside = [x for x in ranked if not any(_inside(x.name, name) for name in names)]
    for layer in outside:
        if order.index(layer.name) < first:
            yield [layer], _passes(model, pieces, layer.module, runs[layer.name])
    if chain is not None:
        _capture(model, chain, pieces)
        for number, name in enumerate(names):
            group = [layer for layer in ranked if _inside(layer.name, name)]
            if group:
                yield group, _steps(chain, number, pieces)
            for i in range(len(pieces)):
                chain.inputs[i] = chain.run(number, i)
    for layer in outside:
        if order.index(layer.name) > first:
            yield [layer], _passes(model, pieces, layer.module, runs[layer.name])


def _steps(chain: Chain, number: int, pieces: Sequence[Samples]) -> Feed:
    """Run one block of the chain, piece by piece."""
    return [(piece, partial(chain.run, number, i)) for i, piece in enumerate(pieces)]


def _inside(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")


def _as_it_is(value: Any) -> tuple[Tensor, int] | None:
    """Return a tensor with how often it was changed in place; None for what is no tensor."""
    if not isinstance(value, Tensor):
        return None
    return value, 0 if value.is_inference() else value._version


def _same(one: tuple[Tensor, int] | None, other: tuple[Tensor, int] | None) -> bool:
    """Whether both are one tensor, with nothing changed in between."""
    return one is not None and other is not None and one[0] is other[0] and one[1] == other[1]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else output


# -- finding the chain ------------------------------------------------------------------


def _candidates(model: nn.Module, layers: Sequence[Layer]) -> list[Chain]:
    """Find lists of modules of one type, those that hold most prunable layers first."""
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        members = dict(module.named_children())
        held = sum(_inside(layer.name, name) or not name for layer in layers)
        if len(members) > 1 and len({type(m) for m in members.values()}) == 1 and held > 1:
            names = [f"{name}.{key}" if name else key for key in members]
            found.append((held, Chain(names, list(members.values()))))
    return [chain for _, chain in sorted(found, key=lambda pair: -pair[0])]


def _explore(
    model: nn.Module, layers: Sequence[Layer], few: Samples
) -> tuple[Chain | None, list[str], Counter[str]]:
    """Find the chain, the order in which modules first run, and how often they do."""
    candidates = _candidates(model, layers)
    watched: dict[str, nn.Module] = {layer.name: layer.module for layer in layers}
    for candidate in candidates:
        watched |= dict(zip(candidate.names, candidate.blocks, strict=True))
    order: list[str] = []
    runs: Counter[str] = Counter()
    received: dict[str, Any] = {}
    returned: dict[str, Any] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            order.append(name)
            runs[name] += 1
            received[name] = _as_it_is(args[0] if args else None)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            returned[name] = _as_it_is(_first(output))

        return hook

    handles = [m.register_forward_pre_hook(before(name)) for name, m in watched.items()]
    handles += [m.register_forward_hook(after(name)) for name, m in watched.items()]
    try:
        call(model, few.inputs)
    finally:
        for handle in handles:
            handle.remove()

    def linked(chain: Chain) -> bool:
        names = chain.names
        return all(runs[name] == 1 and received[name] is not None for name in names) and all(
            _same(received[after], returned[before]) for before, after in pairwise(names)
        )

    chain = next((c for c in candidates if linked(c)), None)
    return chain, list(dict.fromkeys(order)), runs


# -- running the data -------------------------------------------------------------------


class _Stop(Exception):  # noqa: N818
    """Ends a forward pass where nothing further is wanted."""


def _capture(model: nn.Module, chain: Chain, pieces: Sequence[Samples]) -> None:
    """Run the model once, keeping the first block's inputs and the arguments of all."""

    def before(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            if number == 0:
                chain.inputs.append(args[0].clone())
                chain.rest.append([])
            chain.rest[-1].append((args[1:], named))
            if number == len(chain.blocks) - 1:
                raise _Stop

        return hook

    handles = [
        block.register_forward_pre_hook(before(number), with_kwargs=True)
        for number, block in enumerate(chain.blocks)
    ]
    try:
        for piece in pieces:
            _run(model, piece)
    finally:
        for handle in handles:
            handle.remove()


def _passes(model: nn.Module, pieces: Sequence[Samples], module: nn.Module, runs: int) -> Feed:
    """Forward passes that end when a module has run as often as it does."""

    def run(piece: Samples) -> Callable[[], None]:
        def thunk() -> None:
            left = runs

            def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                nonlocal left
                left -= 1
                if not left:
                    raise _Stop

            handle = module.register_forward_hook(hook)
            try:
                _run(model, piece)
            finally:
                handle.remove()

        return thunk

    return [(piece, run(piece)) for piece in pieces]


def _run(model: nn.Module, piece: Samples) -> None:
    with suppress(_Stop):
        call(model, piece.inputs)
