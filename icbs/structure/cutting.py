"""The cut: a smaller dense model without the groups that are not kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icbs.errors import LayerError
from icbs.model.wrappers import inside
from icbs.structure import slicing
from icbs.structure.attention import HEADS, KV_HEADS, WIDTHS, attention_of
from icbs.structure.blocks import module_of, remove_blocks
from icbs.structure.configuration import fit_configuration
from icbs.structure.dimension import ROLES, Dimension, Slice
from icbs.structure.matrices import channels_of
from problems.suggest import did_you_mean


def cut(
    model: nn.Module,
    dimensions: Sequence[Dimension],
    kept: Mapping[str, Tensor],
    *,
    in_place: bool = False,
) -> nn.Module:
    """Return a smaller dense model without the groups that are not kept.

    The columns of readers, the rows of writers with their biases, and the channels of modules
    between them are removed; the numbers of heads in attention modules and the widths in a
    configuration of transformers are put right. The outputs equal those of the model with the
    groups closed, the readers' columns at zero, up to rounding. Biases of readers stay.

    If the configuration can't hold the widths (they differ between layers, or it has no entry for
    them), ``save_pretrained`` of the result raises an error with the remedy;
    :func:`icbs.structure.save_cut` saves any model.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    dimensions : sequence of Dimension
        As :func:`icbs.structure.find_dimensions` returns them.
    kept : mapping of names to bool tensors, shape (groups,)
        Dimensions without an entry are kept whole.
    in_place : bool
        Whether to change ``model`` itself, without a copy.

    Returns
    -------
    nn.Module
        A copy that shares nothing with ``model``, or ``model`` itself.

    Raises
    ------
    LayerError
        If a name is unknown, a tensor has another shape than (groups,), fewer groups are kept
        than the dimension's floor, a module is missing or has fewer channels (as in a model that
        was cut before), or the model is in training mode. The model is not changed then.
    """
    model = inside(model)
    removed = check_kept(model, dimensions, kept)
    if not in_place:
        model = copy.deepcopy(model)
    remove_groups(model, dimensions, kept, removed)
    fit_configuration(model, dimensions, kept)
    return model


def remove_groups(
    model: nn.Module,
    dimensions: Sequence[Dimension],
    kept: Mapping[str, Tensor],
    removed: Mapping[str, Tensor],
) -> None:
    """Remove groups from the modules of a model in place; its configuration is left as it is.

    Parameters
    ----------
    model : nn.Module
    dimensions, kept
        As for :func:`cut`.
    removed : mapping of names to Tensor of int64
        As :func:`check_kept` returns it.
    """
    modules = dict(model.named_modules())
    attentions = {
        dimension.name: attention_of(module_of(dimension), modules[module_of(dimension)], modules)
        for dimension in dimensions
        if dimension.kind == "heads"
    }
    blocks = [d for d in dimensions if d.kind == "blocks" and d.name in removed]
    widths = [d for d in dimensions if d.kind != "blocks" and d.name in removed]
    for side, remove in (
        ("writers", slicing.remove_outputs),
        ("readers", slicing.remove_inputs),
        ("between", slicing.remove_channels),
    ):
        for name, channels in _channels(widths, side, removed).items():
            remove(modules[name], channels)
    for dimension in widths:
        if (known := attentions.get(dimension.name)) is not None:
            share = int(kept[dimension.name].sum())
            queries = known.heads // known.groups * share
            _set_heads(modules[known.name], queries, share, known.size)
    remove_blocks(model, blocks)


def check_kept(
    model: nn.Module, dimensions: Sequence[Dimension], kept: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Check kept groups, and return the numbers of the others, by dimension, where there are any.

    Raises
    ------
    LayerError
        As :func:`cut`.
    """
    named = {dimension.name: dimension for dimension in dimensions}
    for name in kept:
        if name not in named:
            raise LayerError(f"the model has no dimension {name!r}{did_you_mean(name, named)}")
    if model.training:
        raise LayerError("the model is in training mode; call model.eval() before the cut")
    modules = dict(model.named_modules())
    for dimension in dimensions:
        for part in (*dimension.readers, *dimension.writers, *dimension.between):
            if part.module not in modules:
                raise LayerError(
                    f"{dimension.name!r} names {part.module!r}, which the model doesn't have; "
                    "find the dimensions of this model again"
                )
    removed = {}
    for name, own in kept.items():
        dimension = named[name]
        if own.shape != (dimension.groups,):
            raise LayerError(
                f"kept[{name!r}] has shape {tuple(own.shape)}; it must be ({dimension.groups},)"
            )
        count = int(own.bool().sum())
        if count < dimension.floor:
            raise LayerError(
                f"{count} of the {dimension.groups} groups of {name!r} are kept; keep at least "
                f"{dimension.floor}"
            )
        if (problem := misfit(model, dimension)) and dimension.kind != "blocks":
            raise LayerError(
                f"{name!r} doesn't fit the model: {problem}; if it was cut before, find the "
                "dimensions of the cut model"
            )
        if count < dimension.groups:
            removed[name] = (~own.bool()).nonzero().flatten().cpu()
    return removed


def misfit(model: nn.Module, dimension: Dimension) -> str:
    """Describe a module with fewer channels than a dimension names; empty if there is none."""
    for role in ROLES:
        parts: tuple[Slice, ...] = getattr(dimension, role)
        for part in parts:
            width = channels_of(model.get_submodule(part.module), role)
            if part.index.numel() and int(part.index.max()) >= width:
                what = {"readers": "inputs", "writers": "outputs"}.get(role, "channels")
                return (
                    f"{part.module!r} has {width} {what}, and channel {int(part.index.max())} "
                    "(from 0) belongs to it"
                )
    return ""


def _channels(
    dimensions: Sequence[Dimension], side: str, removed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Collect the channels to remove from each module, from all dimensions."""
    found: dict[str, list[Tensor]] = {}
    for dimension in dimensions:
        parts: tuple[Slice, ...] = getattr(dimension, side)
        for part in parts:
            index = part.index.cpu()[removed[dimension.name]].flatten()
            found.setdefault(part.module, []).append(index)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _set_heads(module: Any, heads: int, groups: int, size: int) -> None:
    """Put the numbers of an attention module right."""
    for names, value in ((HEADS, heads), (KV_HEADS, groups), (WIDTHS, heads * size)):
        for name in names:
            if isinstance(getattr(module, name, None), int):
                setattr(module, name, value)
