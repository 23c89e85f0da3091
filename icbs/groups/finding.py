"""Find the groups of a model, with checks before any work."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.config.group_kinds import stride_of, tile_of, within_layer
from icbs.data.samples import Samples
from icbs.errors import LayerError
from icbs.groups.budget import Budget
from icbs.groups.costs import count_costs, measure_costs
from icbs.groups.density import check_density
from icbs.groups.grouping import Grouping, GroupSet
from icbs.model.finding import find_layers, layers_named, matches_any
from icbs.model.gates import WidePart
from icbs.model.kinds import Convolution, kind_of, known_types
from icbs.model.layer import Layer
from icbs.model.wrappers import modules_of
from icbs.structure.dimension import Dimension, Slice
from problems.warn import warn

SHOWN = 4
"""Parts that are left whole in an error; the log and ``icbs layers`` have all."""
log = logging.getLogger("icbs")


def prepare_groups(
    model: nn.Module,
    samples: Samples,
    config: PrunerConfig,
    dimensions: Sequence[Dimension] | None = None,
) -> Grouping:
    """Find the groups of a model, and check that the density or budget is possible.

    Raises
    ------
    LayerError
        See :func:`find_groups`, :func:`icbs.groups.density.check_density` and
        :class:`icbs.groups.budget.Budget`.
    """
    device = next(model.parameters()).device
    inputs = samples[:1].to(device).inputs
    grouping = find_groups(model, inputs, config, dimensions)
    for quantity in ("macs", "parameters"):
        grouping.costs[quantity] = count_costs(grouping, model, inputs, quantity)
    if config.budget is None:
        check_density(grouping, config)
        return grouping
    ((quantity, share),) = config.budget.items()
    if quantity == "latency":
        grouping.costs[quantity] = measure_costs(grouping, model, inputs)
    grouping.budget = Budget(grouping, grouping.costs[quantity], quantity, share)
    return grouping


def find_groups(
    model: nn.Module,
    example_inputs: Any,
    config: PrunerConfig,
    dimensions: Sequence[Dimension] | None = None,
) -> Grouping:
    """Return the groups to prune.

    Parameters
    ----------
    model : nn.Module
    example_inputs : any
        Inputs of one sample, to trace the model.
    config : PrunerConfig
        ``groups``, and the patterns ``include`` and ``exclude``: they match the names of
        dimensions and of the layers that read them.
    dimensions : sequence of Dimension, optional
        Dimensions of a model that can't be traced; by default they are found.

    Raises
    ------
    LayerError
        If the model has no groups of these kinds, or a layer can't be pruned; as for
        :func:`icbs.model.finding.find_layers`.
    """
    assert config.groups is not None
    one_pool = config.allocation == "global"
    if all(map(within_layer, config.groups)):
        (kind,) = config.groups
        layers = _layers_of(model, kind, config)
        return Grouping([_within(layer, kind) for layer in layers], one_pool)
    left: dict[str, str] = {}
    if dimensions is None:
        dimensions, left = prunable_dimensions(model, example_inputs, config.groups)
        for name, reason in left.items():
            log.info("left whole: %s (%s)", name, reason)
    chosen = [one for one in dimensions if _wanted(one, model, config)]
    if not chosen:
        there = ", ".join(one.name for one in dimensions) or "none"
        raise LayerError(
            f"the model has no {' or '.join(config.groups)} to prune in include={config.include}, "
            f"exclude={config.exclude}; found: {there}"
        )
    if missing := [kind for kind in config.groups if kind not in {one.kind for one in chosen}]:
        there = " and ".join(dict.fromkeys(one.kind for one in chosen))
        reasons = [f"{n}: {why}" for n, why in left.items() if n.rpartition(" ")[2] in missing]
        more = f" (left whole: {reasons[0]})" if reasons else ""
        warn(f"no {' or '.join(missing)} found{more}; {there} alone are pruned")
    _check_names(chosen)
    modules = modules_of(model)
    for one in chosen:
        if reason := _unsupported(one, modules):
            raise LayerError(f"{one.name!r} can't be pruned: {reason}; leave it out")
    names = list(dict.fromkeys(reader.module for one in chosen for reader in one.readers))
    by_name = {layer.name: layer for layer in layers_named(model, names)}
    sets = [_of_dimension(one, by_name) for one in chosen]
    _check_disjoint(sets)
    return Grouping(sets, one_pool)


def prunable_dimensions(
    model: nn.Module, example_inputs: Any, kinds: Sequence[str]
) -> tuple[list[Dimension], dict[str, str]]:
    """Find the dimensions that can be pruned, and the parts that are left whole with the reason.

    Those with a layer of another type than can be pruned, such as a Conv1d, can be cut alone.

    Raises
    ------
    LayerError
        If there are none, with what is left whole; and as for
        :func:`icbs.structure.find.survey_dimensions`.
    """
    from icbs.structure.find import survey_dimensions

    found, left = survey_dimensions(model, example_inputs, kinds)
    modules = modules_of(model)
    able = []
    for one in found:
        if reason := _unsupported(one, modules):
            left[one.name] = reason
        else:
            able.append(one)
    if not able:
        reasons = [f"{name}: {reason}" for name, reason in left.items()]
        more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        raise LayerError(
            f"the model has no {' or '.join(kinds)} that can be cut; left whole: "
            f"{'; '.join(reasons[:SHOWN]) or 'nothing of this kind'}{more}"
        )
    return able, left


def _unsupported(dimension: Dimension, modules: Mapping[str, nn.Module]) -> str:
    """Describe the layers of a dimension of types that can't be pruned; empty if there are none."""
    found = {}
    for part in (*dimension.readers, *dimension.writers):
        module = modules.get(part.module)
        if module is not None and kind_of(module) is None:
            found[part.module] = f"{part.module} is a {type(module).__name__}"
    return f"{', '.join(found.values())}, and pruning needs {known_types()}" if found else ""


def _wanted(dimension: Dimension, model: nn.Module, config: PrunerConfig) -> bool:
    if dimension.kind not in (config.groups or ()):
        return False
    modules = modules_of(model)
    names = [dimension.name, *(reader.module for reader in dimension.readers)]
    known = [(name, modules.get(name, model)) for name in names]
    included = any(matches_any(name, module, config.include) for name, module in known)
    return included and not any(matches_any(n, module, config.exclude) for n, module in known)


def _check_names(dimensions: Sequence[Dimension]) -> None:
    names = [one.name for one in dimensions]
    if len(set(names)) < len(names):
        raise LayerError(f"two dimensions have the same name: {', '.join(names)}")


def _check_disjoint(sets: Sequence[GroupSet]) -> None:
    """Refuse sets that share weights."""
    seen: dict[str, tuple[Tensor, str]] = {}
    for own in sets:
        for part in own.parts:
            layer = part.layer
            taken, first = seen.get(layer.name, (torch.zeros_like(layer.pruned), own.name))
            if taken[part.index].any():
                raise LayerError(
                    f"{own.name!r} and {first!r} share weights of {layer.name!r}; exclude one of "
                    "them, or prune them in two runs"
                )
            taken[part.index] = True
            seen[layer.name] = taken, own.name


def _of_dimension(dimension: Dimension, layers: dict[str, Layer]) -> GroupSet:
    parts = tuple(_part_of_reader(layers[reader.module], reader) for reader in dimension.readers)
    return GroupSet(
        dimension.name, dimension.kind, dimension.groups, parts, dimension.floor, dimension
    )


def _part_of_reader(layer: Layer, reader: Slice) -> WidePart:
    """Return the weights that multiply the channels of each group."""
    label = torch.full(layer.shape, -1, dtype=torch.int64)
    rows, width = layer.shape
    parts = layer.kind.groups
    module: Any = layer.module
    positions = 1
    if isinstance(layer.kind, Convolution):
        positions = module.kernel_size[0] * module.kernel_size[1]
    inside = width // positions
    for group, channels in enumerate(reader.index):
        for channel in channels.tolist():
            part, at = divmod(channel, inside)
            if part >= parts:
                raise LayerError(
                    f"channel {channel} is beyond the {parts * inside} inputs of {layer.name!r}"
                )
            own = slice(part * rows // parts, (part + 1) * rows // parts)
            label[own, at * positions : (at + 1) * positions] = group
    return _part(layer, label)


def _part(layer: Layer, label: Tensor) -> WidePart:
    """Return the weights with a label (group number, or -1) as a part."""
    whole = bool((label == label[:1]).all()) and layer.kind.groups == 1
    flat = label.flatten().to(layer.dense.device)
    index = (flat >= 0).nonzero().squeeze(1)
    return WidePart(layer, index, flat[index], columnwise=whole)


def _layers_of(model: nn.Module, kind: str, config: PrunerConfig) -> list[Layer]:
    """Return the layers for groups within a layer."""
    # The density counts groups; any share serves for the checks of single weights.
    layers = find_layers(model, config.model_copy(update={"density": 0.5}))
    if tile_of(kind) is not None:
        return layers
    found = [layer for layer in layers if _has_kernel(layer.module)]
    if not found:
        raise LayerError(
            f"groups={kind!r} needs convolutions with kernels larger than 1×1, and include="
            f"{config.include} has none"
        )
    return found


def _has_kernel(module: nn.Module) -> bool:
    return isinstance(kind_of(module), Convolution) and any(
        size > 1 for size in getattr(module, "kernel_size", ())
    )


def _within(layer: Layer, kind: str) -> GroupSet:
    """Return the groups within a layer."""
    rows, width = layer.shape
    row, column = torch.arange(rows)[:, None], torch.arange(width)[None, :]
    tile = tile_of(kind)
    if tile is not None:
        across = -(-width // tile.columns)
        label = row // tile.rows * across + column // tile.columns
    else:
        module: Any = layer.module
        size = module.kernel_size[0] * module.kernel_size[1]
        channel, position = column // size, column % size
        if kind == "kernels":
            label = row * (width // size) + channel
        else:
            stride = min(stride_of(kind) or module.kernel_size[1], size)
            label = (channel * stride + position % stride).expand(rows, width)
    return GroupSet(layer.name, kind, int(label.max()) + 1, (_part(layer, label),))
