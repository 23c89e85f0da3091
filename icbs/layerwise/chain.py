"""A chain of blocks through which hidden states are carried, if replaying the blocks is faithful.

A block can be replayed alone if it returns the same from the same arguments, and if what it is
given beside the hidden states does not depend on them. Both are tried on a sample before a
chain is used: caches of keys and values, and streams that run beside the hidden states, would
otherwise be those of an earlier call, or of the model as it was before it was pruned.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call, tensors, tree_map
from icbs.data.samples import Samples
from icbs.model.layer import Layer

log = logging.getLogger("icbs")
ALIKE = 1e-3
"""Largest relative difference between what a block returned and what it returns again."""


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
        return first_output(self.blocks[number](self.inputs[piece].clone(), *args, **named))

    def capture(self, model: nn.Module, pieces: Sequence[Samples]) -> None:
        """Run the model once, keeping the first block's inputs and the other arguments of all."""
        self.inputs, self.rest = [], []

        def before(number: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
                if number == 0:
                    self.inputs.append(args[0].clone())
                    self.rest.append([])
                self.rest[-1].append(without_caches((args[1:], named)))
                if number == len(self.blocks) - 1:
                    raise Stop

            return hook

        handles = [
            block.register_forward_pre_hook(before(number), with_kwargs=True)
            for number, block in enumerate(self.blocks)
        ]
        try:
            for piece in pieces:
                run_until_stopped(model, piece)
        finally:
            for handle in handles:
                handle.remove()


class Stop(Exception):  # noqa: N818
    """Ends a forward pass where nothing further is wanted."""


def run_until_stopped(model: nn.Module, piece: Samples) -> None:
    """Run a forward pass that a hook may end."""
    with suppress(Stop):
        call(model, piece.inputs)


def first_output(output: Any) -> Any:
    """Hidden states among what a block returned."""
    return output[0] if isinstance(output, tuple | list) else output


def without_caches(tree: Any) -> Any:
    """Put None in the place of transformers' caches, which a replay would extend."""
    cache = getattr(sys.modules.get("transformers.cache_utils"), "Cache", None)
    if cache is not None and isinstance(tree, cache):
        return None
    if isinstance(tree, dict):
        return {key: without_caches(value) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(without_caches(value) for value in tree)
    return tree


def find_chain(
    model: nn.Module, candidates: Sequence[Chain], layers: Sequence[Layer], one: Samples
) -> Chain | None:
    """Return the first of some candidates whose blocks can be replayed; None if none can.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, without gradients.
    candidates : sequence of Chain
    layers : sequence of Layer
        Those to prune.
    one : Samples
        A single sample.
    """
    for chain in _linked(model, candidates, one):
        if _replays(model, chain, layers, one):
            return chain
        log.info(
            "blocks %s … %s depend on more than their arguments: each layer takes a forward pass",
            chain.names[0],
            chain.names[-1],
        )
    return None


def candidates(model: nn.Module, layers: Sequence[Layer]) -> list[Chain]:
    """Find lists of modules of one type, those that hold most prunable layers first."""
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        members = dict(module.named_children())
        held = sum(within(layer.name, name) or not name for layer in layers)
        if len(members) > 1 and len({type(m) for m in members.values()}) == 1 and held > 1:
            names = [f"{name}.{key}" if name else key for key in members]
            found.append((held, Chain(names, list(members.values()))))
    return [chain for _, chain in sorted(found, key=lambda pair: -pair[0])]


def within(name: str, block: str) -> bool:
    """Whether a layer is a block, or a part of it."""
    return name == block or name.startswith(f"{block}.")


def _linked(model: nn.Module, candidates: Sequence[Chain], one: Samples) -> list[Chain]:
    """Candidates whose blocks run once, each on what the one before returned."""
    runs: Counter[str] = Counter()
    received: dict[str, Any] = {}
    returned: dict[str, Any] = {}
    watched: dict[str, nn.Module] = {}
    for candidate in candidates:
        watched |= dict(zip(candidate.names, candidate.blocks, strict=True))

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            runs[name] += 1
            received[name] = _as_it_is(args[0] if args else None)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            returned[name] = _as_it_is(first_output(output))

        return hook

    handles = [m.register_forward_pre_hook(before(name)) for name, m in watched.items()]
    handles += [m.register_forward_hook(after(name)) for name, m in watched.items()]
    try:
        call(model, one.inputs)
    finally:
        for handle in handles:
            handle.remove()

    def linked(chain: Chain) -> bool:
        names = chain.names
        return all(runs[name] == 1 and received[name] is not None for name in names) and all(
            _same(received[after], returned[before]) for before, after in pairwise(names)
        )

    return [chain for chain in candidates if linked(chain)]


def _replays(model: nn.Module, chain: Chain, layers: Sequence[Layer], one: Samples) -> bool:
    """Whether blocks return the same again, and other arguments stay when the states change."""
    inside = [x for x in layers if any(within(x.name, name) for name in chain.names)]
    outputs: list[Any] = []

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(tree_map(Tensor.clone, first_output(output)))

    handles = [block.register_forward_hook(after) for block in chain.blocks]
    try:
        with _counting(inside) as in_whole:
            call(model, one.inputs)
    finally:
        for handle in handles:
            handle.remove()
    chain.capture(model, [one])
    trial = Chain(chain.names, chain.blocks, list(chain.inputs), list(chain.rest))
    try:
        with _counting(inside) as in_parts:
            for number in range(len(chain.blocks)):
                found = trial.run(number, 0)
                if not _alike(found, outputs[number]):
                    return False
                trial.inputs[0] = found
        if in_whole != in_parts:  # what was cached is not computed again
            return False
        other = Chain(chain.names, chain.blocks)
        with _disturbed(chain.blocks[0]):
            other.capture(model, [one])
    except Exception:  # whatever a block makes of arguments that are not its own
        return False
    return _equal(trial.rest, other.rest)


@contextmanager
def _counting(layers: Sequence[Layer]) -> Iterator[Counter[str]]:
    """Count the calls of layers."""
    counts: Counter[str] = Counter()

    def hook_of(name: str) -> Callable[..., None]:
        return lambda *_: counts.update([name])

    handles = [x.module.register_forward_hook(hook_of(x.name)) for x in layers]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _disturbed(block: nn.Module) -> Iterator[None]:
    """Let a block receive other hidden states than it is given."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        turned = args[0].flip(-1) if args[0].ndim else args[0]
        return (1.25 * turned, *args[1:])

    handle = block.register_forward_pre_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _alike(one: Any, other: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape):
        return False
    difference = (one.double() - other.double()).norm()
    return bool(difference <= ALIKE * other.double().norm())


def _equal(one: Any, other: Any) -> bool:
    """Whether all tensors of two trees are equal, and there are as many."""
    pairs = tensors(one), tensors(other)
    return len(pairs[0]) == len(pairs[1]) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(*pairs, strict=True)
    )


def _as_it_is(value: Any) -> tuple[Tensor, int] | None:
    """Return a tensor with how often it was changed in place; None for anything else."""
    if not isinstance(value, Tensor):
        return None
    return value, 0 if value.is_inference() else value._version


def _same(one: tuple[Tensor, int] | None, other: tuple[Tensor, int] | None) -> bool:
    """Whether both are one tensor, with nothing changed in between."""
    return one is not None and other is not None and one[0] is other[0] and one[1] == other[1]
