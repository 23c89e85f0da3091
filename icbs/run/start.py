"""The masks that a run begins with, and the state that it begins in."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.config.constraints import Pattern
from icbs.data.samples import epoch_order
from icbs.errors import BlockSizeWarning, DataError, LayerError
from icbs.layerwise.sweep import pieces_of, sweep
from icbs.model.layer import Layer
from icbs.model.plain import check_mask
from icbs.run.context import RunContext
from icbs.run.state import RunState
from icbs.selection.allocation import share_out
from icbs.selection.block_selection import Tabu
from icbs.selection.scores import SCORES, initial_mask, movable

log = logging.getLogger("icbs")
_WORD_EVERY = 20.0
"""Seconds between two words about how far the start has come."""


def begin(work: RunContext, masks: Mapping[str, Tensor] | None = None) -> RunState:
    """Set the initial masks, given or by score, and measure where the run starts.

    All layers are scored, dense, before the first of them is pruned.

    Parameters
    ----------
    work : RunContext
    masks : mapping of str to Tensor of bool, optional
        As for :meth:`icbs.Pruner.prune`, checked already.

    Raises
    ------
    DataError
        If the loss of the initial masks is NaN.
    """
    config, began = work.config, time.perf_counter()
    generator = torch.Generator().manual_seed(config.seed + 1)
    scores, seen = None, 0
    exchanges = masks is None and config.initial == "exchange"
    scored = masks is None and not (exchanges and config.allocation != "global")
    if scored or config.fix_prune or config.fix_keep:
        information = work.look(generator)
        seen = information.count
        score = SCORES["wanda" if config.initial == "exchange" else config.initial]
        scores = {layer.name: score(layer, information, generator) for layer in work.layers}
        if masks is None and config.allocation == "global":
            share_out(work.layers, scores, config)
    if exchanges:
        masks = _exchanged(work, seen)
        seen += work.samples
    tabus = {}
    for layer in work.layers:
        free = torch.ones_like(layer.pruned)
        if masks is not None:
            layer.set_mask(~layer.kind.matrix(masks[layer.name]).flatten().to(layer.pruned.device))
        if scores is not None:
            worth = scores[layer.name]
            if masks is None:
                keep = layer.num_keep
                layer.set_mask(initial_mask(worth, keep, config.compare, config.pattern))
            free = movable(worth, layer.pruned, config.fix_prune, config.fix_keep)
        tabus[layer.name] = Tabu(free, config.tabu)
        _check_block_size(layer, free, config)
    state = RunState(generator, tabus, seen=seen, _began=began)
    state.loss = state.initial_loss = work.holdout.measure()
    if math.isnan(state.loss):
        raise DataError(
            "the loss of the initial masks on held-out samples is NaN; check the data, begin with "
            "more weights (density) or better ones (initial), or use a wider floating-point type"
        )
    state.remember(work.layers)
    state.started = state.seconds
    return state


def _exchanged(work: RunContext, seen: int) -> dict[str, Tensor]:
    """Masks by exchanges from Wanda's, on as many samples as a pass has."""
    config = work.config
    turn = epoch_order(len(work.pool), seen, work.samples, config.seed)
    pieces = pieces_of(work.pool[turn], work.plan.batch_size, work.layers[0].dense.device)
    began = spoken = math.nan

    def tell(done: int, layers: int) -> None:
        nonlocal began, spoken
        now = time.perf_counter()
        if done == 1:  # what comes before the first layer is over: only now count
            began = spoken = now
        elif now - spoken > _WORD_EVERY:
            spoken, left = now, (now - began) * (layers - done) / (done - 1)
            log.info("the start: %d of %d layers, %.0f s left", done, layers, left)

    sweep(work.model, work.layers, pieces, "exchange", config, callback=tell)
    return {layer.name: layer.mask for layer in work.layers}


def _check_block_size(layer: Layer, free: Tensor, config: PrunerConfig) -> None:
    half = min(int((free & layer.pruned).sum()), int((free & ~layer.pruned).sum()))
    # The default asks for as many as there are; only a size that was asked for is missed.
    if "block_size" in config.model_fields_set and config.block_size > 2 * half:
        warnings.warn(
            f"block_size {config.block_size} is more than layer {layer.name!r} can fill "
            f"({half} of its movable weights are on the smaller side): its blocks are smaller",
            BlockSizeWarning,
            stacklevel=4,
        )


def check_masks(
    masks: Mapping[str, Tensor], layers: Sequence[Layer], pattern: Pattern | None = None
) -> None:
    """Refuse starting masks that are not one for each layer, of its shape and density.

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
            f"masks has {_listed(unknown)}, which are no layers to prune; leave them out, "
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
