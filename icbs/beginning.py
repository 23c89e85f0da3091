"""The masks that a run begins with, and the state that it begins in."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from icbs.baselines.sweep import pieces_of, sweep
from icbs.choice.scores import SCORES, initial_mask, movable
from icbs.choice.selection import Tabu
from icbs.config import PrunerConfig
from icbs.data.turns import in_turn
from icbs.errors import BlockSizeWarning, DataError
from icbs.layers.allocation import share_out
from icbs.layers.layer import Layer
from icbs.state import State
from icbs.workspace import Workspace

log = logging.getLogger("icbs")
_WORD_EVERY = 20.0
"""Seconds between two words about how far the start has come."""


def begin(work: Workspace, masks: Mapping[str, Tensor] | None = None) -> State:
    """Set the initial masks, given or by score, and measure where the run starts.

    All layers are scored, dense, before the first of them is pruned.

    Parameters
    ----------
    work : Workspace
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
    state = State(generator, tabus, seen=seen, _began=began)
    state.loss = state.initial_loss = work.holdout.measure()
    if math.isnan(state.loss):
        raise DataError(
            "the loss of the initial masks on held-out samples is NaN; check the data, begin with "
            "more weights (density) or better ones (initial), or use a wider floating-point type"
        )
    state.remember(work.layers)
    state.started = state.seconds
    return state


def _exchanged(work: Workspace, seen: int) -> dict[str, Tensor]:
    """Masks by exchanges from Wanda's, on as many samples as a pass has."""
    config = work.config
    turn = in_turn(len(work.pool), seen, work.samples, config.seed)
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
