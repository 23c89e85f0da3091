"""Whole blocks of a residual stream: found by a test, removed from their list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call
from icbs.errors import LayerError
from icbs.model.hooks import watch_calls
from icbs.structure.dimension import Dimension, Slice
from icbs.structure.matrices import inputs_of, is_linear


def module_of(dimension: Dimension) -> str:
    """Return the name of the module that a dimension is named after."""
    return dimension.name.removesuffix(f" {dimension.kind}")


def block_dimensions(
    model: nn.Module, inputs: Any, inner: Sequence[Dimension], left: dict[str, str]
) -> Iterator[Dimension]:
    """Yield a dimension of one group for each block that can be removed.

    A block is an entry of a ``ModuleList``. Its readers are those of its heads and neurons: they
    write to the residual stream, so that the block returns its input once their outputs are zero.
    That is tested; blocks with a normalisation after the addition fail, and are left whole.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    inputs
        Inputs of a call.
    inner : sequence of Dimension
        Heads and neurons.
    left : dict of str to str
        Takes the blocks that are left whole, with the reason.
    """
    found: dict[str, list[Slice]] = {}
    for name, readers in _blocks(model, inner).items():
        found[name] = [
            Slice(r, torch.arange(inputs_of(model.get_submodule(r)))[None]) for r in readers
        ]
    same = _returns_input(model, inputs, {n: [s.module for s in r] for n, r in found.items()})
    first: dict[str, str] = {}
    for name, slices in found.items():
        biased = any(_bias(model.get_submodule(part.module)) is not None for part in slices)
        start = first.setdefault(name.rpartition(".")[0], name)
        if not same[name]:
            left[f"block {name}"] = "it is not a sum of its input and branches"
        elif biased and name == start:
            left[f"block {name}"] = "no block before it can take its biases"
        else:
            yield Dimension(f"{name} blocks", "blocks", 1, tuple(slices), floor=0)


def _blocks(model: nn.Module, inner: Sequence[Dimension]) -> dict[str, list[str]]:
    """Return the readers of each entry of each outermost ModuleList that has some."""
    readers = {part.module: None for dimension in inner for part in dimension.readers}
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{f}.") for f in found):
            continue
        for key, _ in module.named_children():
            block = f"{name}.{key}"
            own = [reader for reader in readers if reader.startswith(f"{block}.")]
            if own and all(is_linear(model.get_submodule(reader)) for reader in own):
                found[block] = own
    return found


@torch.no_grad()
def _returns_input(model: nn.Module, inputs: Any, blocks: dict[str, list[str]]) -> dict[str, bool]:
    """Test which blocks return their first input once their readers return zero."""
    same = dict.fromkeys(blocks, False)

    def compare(name: str, args: Any, named: dict[str, Any], output: Any) -> None:
        first = args[0] if args else named.get("hidden_states")
        out = output[0] if isinstance(output, tuple | list) else output
        same[name] = (
            isinstance(first, Tensor)
            and isinstance(out, Tensor)
            and first.shape == out.shape
            and torch.equal(first, out)
        )

    watched = {name: model.get_submodule(name) for name in blocks}
    readers = {name: model.get_submodule(name) for own in blocks.values() for name in own}
    closed = watch_calls(readers, after=lambda name, args, named, output: output * 0)
    with watch_calls(watched, after=compare), closed:
        call(model, inputs)
    return same


def remove_blocks(model: nn.Module, dimensions: Sequence[Dimension]) -> None:
    """Remove blocks from their lists; the biases of their readers go to the block before.

    Raises
    ------
    LayerError
        If a list would be empty.
    """
    by_list: dict[str, list[Dimension]] = {}
    for dimension in dimensions:
        by_list.setdefault(module_of(dimension).rpartition(".")[0], []).append(dimension)
    for name, own in by_list.items():
        blocks: Any = model.get_submodule(name)
        gone = {int(module_of(dimension).rpartition(".")[2]): dimension for dimension in own}
        stay = [number for number in range(len(blocks)) if number not in gone]
        if not stay:
            raise LayerError(f"all blocks of {name!r} would be removed; keep at least one")
        for number, dimension in gone.items():
            _move_biases(
                model, f"{name}.{max((s for s in stay if s < number), default=-1)}", dimension
            )
        _set_layers(model, name, stay)


def _move_biases(model: nn.Module, before: str, dimension: Dimension) -> None:
    """Add the biases of a removed block to that of the last reader of the block before."""
    block = module_of(dimension)
    for part in dimension.readers:
        bias = _bias(model.get_submodule(part.module))
        if bias is None:
            continue
        last = dimension.readers[-1].module.removeprefix(block)
        try:
            target = model.get_submodule(before + last)
        except AttributeError:
            raise LayerError(
                f"{block} has biases and no kept block before it that can take them; keep one"
            ) from None
        own = _bias(target)
        if own is None:
            raise LayerError(f"{before + last} has no bias to take those of {block}; keep {block}")
        with torch.no_grad():
            own += bias


def _bias(module: nn.Module) -> Tensor | None:
    found: Tensor | None = getattr(module, "bias", None)
    return found


def _set_layers(model: nn.Module, name: str, stay: list[int]) -> None:
    """Keep some blocks of a list, and renumber their caches and the configuration's lists."""
    blocks: Any = model.get_submodule(name)
    total = len(blocks)
    parent: Any = model.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.ModuleList(blocks[number] for number in stay))
    for number, old in enumerate(stay):
        for module in blocks[old].modules():
            if getattr(module, "layer_idx", None) == old:
                module.layer_idx = number
    config: Any = getattr(model, "config", None)
    if getattr(config, "num_hidden_layers", None) == total:
        types = getattr(config, "layer_types", None)
        if isinstance(types, list) and len(types) == total:
            config.layer_types = [types[number] for number in stay]
        config.num_hidden_layers = len(stay)
