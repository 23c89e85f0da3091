"""Comparison of masks with the true optimum, for the quadratic model and for the solver."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icbs.blocks.solving import solve_blocks
from icbs.data.objective import Loss
from icbs.enumeration.comparison import Comparison, Stage
from icbs.enumeration.mask_set import MAX_MASKS
from icbs.enumeration.optimum import Callback, true_optimum
from icbs.export.masks import apply_masks
from icbs.pruner import Pruner, make_blocks
from solvers import Solution, solve

PROOF_SECONDS = 60.0
"""Time limit of the proof for the quadratic model of the start."""


def compare_with_optimum(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    masks: Mapping[str, Tensor],
    *,
    name: str = "iCBS",
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    max_masks: int = MAX_MASKS,
    callback: Callback | None = None,
    **settings: Any,
) -> Comparison:
    """Set pruned masks next to the optimum of the quadratic model and the true optimum.

    The quadratic model is that of the first pass of a run with these settings and one block of
    all weights (``block_size="all"``), solved by ``exact``. All masks that keep as many weights
    are evaluated for the true optimum.

    Parameters
    ----------
    model, batches, loss
        As for :meth:`icbs.Pruner.prune`; the model is dense, and stays as it is. Batches are
        read several times.
    masks : mapping of str to Tensor of bool
        Masks of a run: ``result.masks``.
    name : str
        Name of these masks.
    evaluate : callable, optional
        ``evaluate(model)``: test figures.
    max_masks, callback
        As for :func:`icbs.true_optimum`.
    **settings
        Settings of the run; see :class:`icbs.PrunerConfig`.

    Raises
    ------
    ConfigError, LayerError, DataError, SolverError
        As :func:`icbs.true_optimum` and :class:`icbs.Pruner`.
    """
    pruner = Pruner(**settings)
    exact: dict[str, Any] = {"solver": "exact", "solver_options": {}, "solver_time_limit": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run has given them
        (block,) = make_blocks(model, batches, loss, **settings | exact | {"block_size": "all"})
    start = block.masks(block.start)
    others = {key: value for key, value in settings.items() if not key.startswith("solver")}
    optimum = true_optimum(
        model, batches, loss, masks=start, max_masks=max_masks, callback=callback, **others
    )
    best = solve(block.problem, "exact", time_limit=PROOF_SECONDS, initial_state=block.start)
    x = block.start if best.x is None else best.x
    (own,) = solve_blocks([block], pruner.solver, pruner.config, 0)
    dense = {layer: torch.ones_like(mask) for layer, mask in start.items()}
    start_loss = optimum.loss_of(start)

    def stage(name: str, masks: Mapping[str, Tensor]) -> Stage:
        found = optimum.loss_of(masks)
        share = optimum.share(start_loss, found)
        return Stage(
            name=name,
            loss=found,
            share=None if masks is dense or math.isnan(share) else share,
            rank=None if masks is dense else optimum.rank(found),
            figures={} if evaluate is None else evaluate(_masked(model, masks)),
        )

    stages = [stage("dense", dense), stage(f"start ({pruner.config.initial})", start)]
    stages.append(stage("quadratic optimum", block.masks(x)))
    solver, solver_share = pruner.config.solver, None
    if isinstance(own, Solution) and own.x is not None:
        solver_share = own.energy / best.energy if best.energy < 0 else None
        if solver != "exact":
            stages.append(stage(f"quadratic, {solver}", block.masks(own.x)))
    stages += [stage(name, masks), stage("true optimum", optimum.masks)]
    return Comparison(
        num_masks=optimum.mask_set.count,
        stages=stages,
        predicted=block.predicted(x, best.energy),
        actual=stages[2].loss - start_loss,
        proved=best.is_optimal,
        solver=solver,
        solver_share=solver_share,
    )


def _masked(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model with masks applied."""
    copied = copy.deepcopy(model)
    apply_masks(copied, masks)
    return copied
