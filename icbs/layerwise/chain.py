"""Chains of blocks that can be run one by one, each on the outputs of the one before.

A block can be replayed by itself if it returns the same outputs for the same arguments, and if
its other arguments don't depend on the hidden states. Both are tested on a sample before a
chain is used. Otherwise caches of keys and values, and additional streams of states, would be
those of an earlier call, or of the model before pruning.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call, tensors, tree_map
from icbs.data.samples import Samples
from icbs.model.hooks import replaced_forward, watch_calls
from icbs.model.layer import Layer

log = logging.getLogger("icbs")
TOLERANCE = 1e-3
"""Largest relative difference between the outputs of a block and of its replay."""


@dataclass
class Chain:
    """Blocks that take the output of the previous block as their first argument."""

    names: list[str]
    blocks: list[nn.Module]
    inputs: list[Any] = field(default_factory=list)
    """First argument of the next block, by part of the samples."""
    rest: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = field(default_factory=list)
    """Other arguments, by part and block; they don't depend on the hidden states."""
    stub: Callable[..., Any] | None = None
    """Used in place of the blocks by :meth:`capture`, if the arguments are the same then."""

    def run(self, number: int, piece: int) -> Any:
        """Return the output of a block for a part of the samples, given the current inputs."""
        args, named = self.rest[piece][number]
        # A copy, for blocks that change their input in place.
        return first_output(self.blocks[number](self.inputs[piece].clone(), *args, **named))

    def capture(self, model: nn.Module, pieces: Sequence[Samples]) -> None:
        """Run the model once and record the first block's input and all other arguments.

        With a stub the blocks are not computed, which saves most of the time.
        """
        self.inputs, self.rest = [], []

        def before(number: int, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            if number == 0:
                self.inputs.append(args[0].clone())
                self.rest.append([])
            self.rest[-1].append(without_caches((args[1:], named)))
            if number == len(self.blocks) - 1:
                raise StopForward

        with ExitStack() as stack:
            if self.stub is not None:
                for block in self.blocks:
                    stack.enter_context(replaced_forward(block, self.stub))
            stack.enter_context(watch_calls(dict(enumerate(self.blocks)), before=before))
            for piece in pieces:
                run_until_stopped(model, piece)


class StopForward(Exception):  # noqa: N818
    """Raised by a hook to end a forward pass early."""


def run_until_stopped(model: nn.Module, piece: Samples) -> None:
    """Run a forward pass that a hook may end early."""
    with suppress(StopForward):
        call(model, piece.inputs)


def first_output(output: Any) -> Any:
    """Return the hidden states in a block's output."""
    return output[0] if isinstance(output, tuple | list) else output


def without_caches(tree: Any) -> Any:
    """Replace transformers' caches, which a replay would extend, by None."""
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
    """Return the first candidate whose blocks can be replayed; None if there is none.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, without gradients.
    candidates : sequence of Chain
    layers : sequence of Layer
        The layers to prune.
    one : Samples
        A single sample.
    """
    for chain in _linked(model, candidates, one):
        if _replays(model, chain, layers, one):
            return chain
        log.info(
            "blocks %s … %s can't be run one by one: each layer needs its own forward pass",
            chain.names[0],
            chain.names[-1],
        )
    return None


def candidates(model: nn.Module, layers: Sequence[Layer], *, mixed: bool = False) -> list[Chain]:
    """Return lists of modules of one type, those with the most prunable layers first.

    With ``mixed`` lists of modules of several types are included, after the others.
    """
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        members = dict(module.named_children())
        count = sum(is_inside(layer.name, name) or not name for layer in layers)
        equal = len({type(m) for m in members.values()}) == 1
        if len(members) > 1 and (equal or mixed) and count > 1:
            names = [f"{name}.{key}" if name else key for key in members]
            found.append((not equal, -count, Chain(names, list(members.values()))))
    return [chain for *_, chain in sorted(found, key=lambda entry: entry[:2])]


def is_inside(name: str, block: str) -> bool:
    """Whether a layer is a block or a part of it, by their names."""
    return name == block or name.startswith(f"{block}.")


def _linked(model: nn.Module, candidates: Sequence[Chain], one: Samples) -> list[Chain]:
    """Return the candidates whose blocks run once, each on the previous block's output."""
    runs: Counter[str] = Counter()
    received: dict[str, Any] = {}
    returned: dict[str, Any] = {}
    watched: dict[str, nn.Module] = {}
    for candidate in candidates:
        watched |= dict(zip(candidate.names, candidate.blocks, strict=True))

    def before(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        runs[name] += 1
        received[name] = _versioned(args[0] if args else None)

    def after(name: str, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        returned[name] = _versioned(first_output(output))

    with watch_calls(watched, before=before, after=after):
        call(model, one.inputs)

    def linked(chain: Chain) -> bool:
        names = chain.names
        return all(runs[name] == 1 and received[name] is not None for name in names) and all(
            _same(received[after], returned[before]) for before, after in pairwise(names)
        )

    return [chain for chain in candidates if linked(chain)]


def _replays(model: nn.Module, chain: Chain, layers: Sequence[Layer], one: Samples) -> bool:
    """Whether replays give equal outputs, with other arguments independent of the states."""
    inside = [x for x in layers if any(is_inside(x.name, name) for name in chain.names)]
    outputs: list[Any] = []
    forms: set[tuple[type, int] | None] = set()

    def after(number: int, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        outputs.append(tree_map(Tensor.clone, first_output(output)))
        forms.add(_form(output))

    with watch_calls(dict(enumerate(chain.blocks)), after=after), _counting(inside) as in_model:
        call(model, one.inputs)
    chain.capture(model, [one])
    trial = Chain(chain.names, chain.blocks, list(chain.inputs), list(chain.rest))
    try:
        with _counting(inside) as in_replay:
            for number in range(len(chain.blocks)):
                found = trial.run(number, 0)
                if not _close(found, outputs[number]):
                    return False
                trial.inputs[0] = found
        if in_model != in_replay:  # cached outputs are not computed again
            return False
        other = Chain(chain.names, chain.blocks)
        with _disturbed(chain.blocks[0]):
            other.capture(model, [one])
    except Exception:  # blocks may raise any error for arguments of another call
        return False
    if not _equal(trial.rest, other.rest):
        return False
    if len(forms) == 1:
        chain.stub = _stub_of(forms.pop(), model, trial, one)
    return True


def _form(output: Any) -> tuple[type, int] | None:
    """Return the type of a block's output, and how many None follow the hidden states.

    None for an output with anything else.
    """
    if isinstance(output, Tensor):
        return Tensor, 0
    if type(output) not in (tuple, list) or any(rest is not None for rest in output[1:]):
        return None
    return type(output), len(output) - 1


def _stub_of(
    form: tuple[type, int] | None, model: nn.Module, chain: Chain, one: Samples
) -> Callable[..., Any] | None:
    """Return a function that can stand for the blocks when their arguments are recorded.

    None if the arguments depend on what the blocks do.
    """
    if form is None:
        return None
    kind, empty = form

    def unchanged(states: Tensor, *args: Any, **named: Any) -> Any:
        return states if kind is Tensor else kind([states, *[None] * empty])

    bare = Chain(chain.names, chain.blocks, stub=unchanged)
    try:
        bare.capture(model, [one])
    except Exception:  # the model may compute anything with the outputs
        return None
    return unchanged if _equal(bare.rest, chain.rest) else None


@contextmanager
def _counting(layers: Sequence[Layer]) -> Iterator[Counter[str]]:
    """Count the calls of layers within the context."""
    counts: Counter[str] = Counter()

    def after(name: str, *_: Any) -> None:
        counts[name] += 1

    with watch_calls({layer.name: layer.module for layer in layers}, after=after):
        yield counts


@contextmanager
def _disturbed(block: nn.Module) -> Iterator[None]:
    """Change the hidden states that a block receives within the context."""

    def before(
        key: int, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        flipped = args[0].flip(-1) if args[0].ndim else args[0]
        return (1.25 * flipped, *args[1:]), named

    with watch_calls({0: block}, before=before, prepend=True):
        yield


def _close(one: Any, other: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape):
        return False
    difference = (one.double() - other.double()).norm()
    return bool(difference <= TOLERANCE * other.double().norm())


def _equal(one: Any, other: Any) -> bool:
    """Whether two trees have equal tensors."""
    pairs = tensors(one), tensors(other)
    return len(pairs[0]) == len(pairs[1]) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(*pairs, strict=True)
    )


def _versioned(value: Any) -> tuple[Tensor, int] | None:
    """Return a tensor with its number of in-place changes; None for anything else."""
    if not isinstance(value, Tensor):
        return None
    return value, 0 if value.is_inference() else value._version


def _same(one: tuple[Tensor, int] | None, other: tuple[Tensor, int] | None) -> bool:
    """Whether both are the same tensor, not changed in between."""
    return one is not None and other is not None and one[0] is other[0] and one[1] == other[1]
