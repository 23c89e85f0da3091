"""Groups closed at their readers, and the test that nothing else reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call
from icbs.structure.dimension import Dimension
from icbs.structure.matrices import channel_axis
from icbs.structure.outputs import output_tensors


@contextmanager
def closed(
    model: nn.Module, dimensions: Sequence[Dimension], kept: Mapping[str, Tensor]
) -> Iterator[None]:
    """Set the groups that are not kept to zero at their readers within the context.

    Parameters
    ----------
    model : nn.Module
    dimensions : sequence of Dimension
    kept : mapping of names to bool tensors, shape (groups,)
        Dimensions without an entry are kept whole.
    """
    handles = []
    for dimension in dimensions:
        if dimension.name not in kept:
            continue
        pruned = ~kept[dimension.name]
        for reader in dimension.readers:
            module = model.get_submodule(reader.module)
            handles.append(module.register_forward_pre_hook(_zeroing(reader.index[pruned])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zeroing(index: Tensor) -> Any:
    channels = index.flatten()

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *rest = args
        axis = channel_axis(module, first.dim())
        return (first.index_fill(axis, channels.to(first.device), 0), *rest)

    return hook


def _disturbing(index: Tensor, generator: torch.Generator) -> Any:
    channels = index.flatten()

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        axis = channel_axis(module, output.dim())
        at = channels.to(output.device)
        part = output.index_select(axis, at)
        noise = torch.randn(part.shape, generator=generator, dtype=torch.float64)
        scale = output.detach().double().std().clamp_min(1e-3)
        return output.index_add(axis, at, (noise.to(output.device) * scale).to(output))

    return hook


@torch.no_grad()
def undisturbed(model: nn.Module, inputs: Any, dimensions: Sequence[Dimension]) -> bool:
    """Test that closed groups don't reach the outputs by another way than their readers.

    Half of the groups are closed at their readers while their writers are disturbed by noise;
    the model's outputs must not change.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    inputs
        Inputs of a call.
    dimensions : sequence of Dimension
    """
    generator = torch.Generator().manual_seed(0)
    kept = {}
    for dimension in dimensions:
        half = torch.arange(dimension.groups) % 2 == 1
        kept[dimension.name] = half
    handles = []
    with closed(model, dimensions, kept):
        before = output_tensors(call(model, inputs))
        try:
            for dimension in dimensions:
                for part in (*dimension.writers, *dimension.between):
                    module = model.get_submodule(part.module)
                    index = part.index[~kept[dimension.name]]
                    handles.append(module.register_forward_hook(_disturbing(index, generator)))
            after = output_tensors(call(model, inputs))
        finally:
            for handle in handles:
                handle.remove()
    return all(_close(a, b) for a, b in zip(before, after, strict=True))


def _close(first: Tensor, second: Tensor) -> bool:
    size = first.float().abs().max() if first.numel() else torch.zeros(())
    return bool((first.float() - second.float()).abs().max() <= 1e-4 * size + 1e-6)
