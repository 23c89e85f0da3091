"""Start of a run: initial masks, given or by score, and the initial state."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from icbs import streams
from icbs.config import PrunerConfig
from icbs.config.constraints import Pattern
from icbs.config.names import LAYERWISE, UPDATING
from icbs.data.samples import epoch_order, joined
from icbs.errors import BlockSizeWarning, DataError, LayerError
from icbs.groups.start import check_state, start_groups
from icbs.layerwise.sweep import Method, pieces_of, sweep
from icbs.model.layer import Layer
from icbs.model.plain import check_mask
from icbs.run.context import RunContext
from icbs.run.state import RunState
from icbs.selection.allocation import adopt, share_out
from icbs.selection.block_selection import Tabu
from icbs.selection.scores import check_layers, initial_mask, make_score, movable
from problems.warn import warn

log = logging.getLogger("icbs")
FITTED_SAMPLES = 4096
"""Samples to which an initial method fits weights, if a pass has fewer."""
_LOG_EVERY = 20.0
"""Seconds between two progress lines of the start in the log."""


def start_run(context: RunContext, masks: Mapping[str, Tensor] | None = None) -> RunState:
    """Set the initial masks, given or by score, and measure the initial loss.

    All layers are scored while the whole model is dense.

    Parameters
    ----------
    context : RunContext
    masks : mapping of str to Tensor of bool, optional
        As for :meth:`icbs.Pruner.prune`; already checked.

    Raises
    ------
    DataError
        If the loss of the initial masks is NaN.
    """
    config, began = context.config, time.perf_counter()
    generator = streams.passes(config.seed)
    start = _start_weights if context.grouping is None else start_groups
    samples_seen, tabus = start(context, masks, generator)
    state = RunState(
        generator,
        tabus,
        context.acceptance_rule(),
        samples_seen=samples_seen,
    )
    state.set_clock(time.perf_counter() - began)
    state.loss = state.initial_loss = context.holdout.measure()
    if math.isnan(state.loss):
        raise DataError(
            "the loss of the initial masks on held-out samples is NaN; check the data, begin with "
            "more weights (density) or better ones (initial), or use a wider floating-point type"
        )
    state.keep_best(context.layers)
    state.start_seconds = state.seconds
    return state


def _start_weights(
    context: RunContext, masks: Mapping[str, Tensor] | None, generator: torch.Generator
) -> tuple[int, dict[str, Tabu]]:
    """Set the initial masks of single weights; return the samples used, and the tabu lists."""
    config = context.config
    scores, samples_seen = None, 0
    by_layers = masks is None and config.initial in LAYERWISE
    scored = masks is None and not (by_layers and config.allocation == "uniform")
    if scored or config.paper.fix_prune or config.paper.fix_keep:
        name = "wanda" if config.initial in LAYERWISE else config.initial
        score_of = make_score(name, config)
        check_layers(score_of, context.layers)
        pass_info = context.take_pass(generator)
        samples_seen = pass_info.count
        scores = {layer.name: score_of(layer, pass_info, generator) for layer in context.layers}
        if masks is None and config.allocation != "uniform":
            share_out(context.layers, scores, config)
    if by_layers:
        masks, count = _layer_by_layer(context, samples_seen)
        samples_seen += count
    tabus = {}
    for layer in context.layers:
        free = torch.ones_like(layer.pruned)
        if masks is not None:
            layer.set_mask(~layer.kind.matrix(masks[layer.name]).flatten().to(layer.pruned.device))
        if scores is not None:
            score = scores[layer.name]
            if masks is None:
                keep = layer.num_keep
                layer.set_mask(initial_mask(score, keep, config.compare, config.pattern))
            free = movable(score, layer.pruned, config.paper.fix_prune, config.paper.fix_keep)
        tabus[layer.name] = Tabu(free, config.tabu)
        _check_block_size(layer, free, config)
    return samples_seen, tabus


def _layer_by_layer(context: RunContext, samples_seen: int) -> tuple[dict[str, Tensor], int]:
    """Return masks of a layer-wise method, and the samples used; set the weights that it changes.

    Weights are fitted to the samples, and need more of them than masks: where there are few, the
    held-out ones are used as well, which compare states after the start only.
    """
    config = context.config
    updating = config.initial in UPDATING
    count = max(context.num_samples, FITTED_SAMPLES if updating else 0)
    count = min(count, len(context.pool))
    order = epoch_order(len(context.pool), samples_seen, count, config.seed)
    fitted = context.pool[order]
    if updating and count < FITTED_SAMPLES:
        fitted = joined(fitted, context.heldout[: FITTED_SAMPLES - count])
    pieces = pieces_of(fitted, context.plan.batch_size, context.layers[0].dense.device)
    began = last_logged = math.nan

    def report(done: int, layers: int) -> None:
        nonlocal began, last_logged
        now = time.perf_counter()
        if done == 1:  # the first layer includes setup; exclude it from the estimate
            began = last_logged = now
        elif now - last_logged > _LOG_EVERY:
            last_logged, left = now, (now - began) * (layers - done) / (done - 1)
            log.info("the start: %d of %d layers, %.0f s left", done, layers, left)

    method = cast("Method", config.initial)
    sweep(context.model, context.layers, pieces, method, config, callback=report)
    if updating:
        for layer in context.layers:
            pruned = layer.pruned.view(layer.shape)
            layer.replace_weights(torch.where(pruned, layer.original, layer.weight))
    return {layer.name: layer.mask for layer in context.layers}, count


def _check_block_size(layer: Layer, free: Tensor, config: PrunerConfig) -> None:
    half = min(int((free & layer.pruned).sum()), int((free & ~layer.pruned).sum()))
    # The default adapts to the layer; warn only of a size that was set explicitly.
    size = config.block_size
    if "block_size" in config.model_fields_set and size != "all" and size > 2 * half:
        warn(
            f"block_size {size} is more than layer {layer.name!r} can fill "
            f"({half} of its movable weights are on the smaller side): its blocks are smaller",
            BlockSizeWarning,
        )


def check_given(context: RunContext, masks: Mapping[str, Tensor]) -> None:
    """Refuse initial masks that don't suit the run; set the densities that they imply.

    Raises
    ------
    LayerError
        See :func:`check_masks`, :func:`icbs.selection.allocation.adopt` and
        :meth:`icbs.groups.grouping.Grouping.state_of`.
    """
    config = context.config
    if context.grouping is not None:
        check_state(context.grouping, context.grouping.state_of(masks), config)
        return
    if config.allocation != "uniform":
        adopt(context.layers, masks, config)
    check_masks(masks, context.layers, config.pattern)


def check_masks(
    masks: Mapping[str, Tensor], layers: Sequence[Layer], pattern: Pattern | None = None
) -> None:
    """Refuse initial masks unless there is one for each layer, of its shape and density.

    Parameters
    ----------
    masks : mapping of str to Tensor of bool
        Layer name → mask, True where the weight is kept, in the shape of its weight.
    layers : sequence of Layer
        The layers to prune.
    pattern : Pattern, optional
        N:M that each mask must follow.

    Raises
    ------
    LayerError
        Naming the layer and the remedy.
    """
    names = [layer.name for layer in layers]
    if absent := [name for name in names if name not in masks]:
        raise LayerError(
            f"masks has none for {_listed(absent)}; give one for each layer to prune, "
            "or exclude these layers"
        )
    if unknown := [name for name in masks if name not in names]:
        raise LayerError(
            f"masks has {_listed(unknown)}, which are not prunable layers; leave them out, "
            "or include these layers"
        )
    for layer in layers:
        mask = masks[layer.name]
        check_mask(layer.name, mask)
        shape = tuple(layer.kind.weight.shape)
        if tuple(mask.shape) != shape:
            raise LayerError(
                f"the mask of {layer.name!r} has shape {tuple(mask.shape)}; it must have that "
                f"of the weight, {shape}"
            )
        kept = int(mask.sum())
        if kept != layer.num_keep:
            raise LayerError(
                f"the mask of {layer.name!r} keeps {kept} of {layer.size} weights and density "
                f"{layer.density:g} asks for {layer.num_keep}; set "
                f"densities={{{layer.name!r}: {kept / layer.size:.6g}}}"
            )
        if pattern is None:
            continue
        runs = layer.kind.matrix(mask).reshape(-1, pattern.run)
        if (runs.sum(dim=1) != pattern.keep).any():
            raise LayerError(
                f"the mask of {layer.name!r} has runs that don't keep {pattern}; "
                "use masks made for that constraint"
            )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
