"""CBS on a whole model: randomised magnitude, local search, weight update."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from icbs import streams
from icbs.config import PrunerConfig
from icbs.config.fields import Count, Unit
from icbs.config.groups import Group
from icbs.data.objective import Loss
from icbs.model.modes import evaluation_mode
from icbs.recovery.closed_form import ClosedForm
from icbs.recovery.direction import Direction
from icbs.recovery.gradient_rows import GradientRows
from icbs.run.context import RunContext
from icbs.surgeon.local_search import LocalSearch
from icbs.surgeon.random_magnitude import random_magnitude
from icbs.surgeon.stored_gradients import StoredGradients

MEMORY = 1 << 31
"""Bytes for inputs and output gradients, by default."""


class SurgeonSettings(Group):
    """Settings of CBS."""

    draws: Annotated[int, Field(ge=0), Unit("masks")] = 50
    """Random masks, besides that of plain magnitude."""
    sweeps: Annotated[int, Field(ge=0), Unit("sweeps")] = 100
    """Maximum number of sweeps of the local search; 0 leaves it out."""
    patience: Annotated[Count, Unit("sweeps")] = 5
    """Sweeps without a lower loss after which the search ends."""
    fisher_samples: Annotated[Count, Unit("samples")] = 1000
    """Maximum number of samples in the empirical Fisher matrix, at the dense weights."""
    ridge: Annotated[float, Field(gt=0), Unit("factor")] = 1e-3
    """μ, added to the diagonal of the Fisher matrix."""
    update: bool = True
    """Whether the kept weights move at the end (CBS-U)."""
    first_order: Annotated[float, Field(ge=0), Unit("factor")] = 0.0
    """Weight of the gradient in that update; 0 in the paper, and 1 for a dense model that is not
    at a minimum."""


@dataclass(frozen=True)
class SurgeonStage:
    """Figures after a stage."""

    name: str
    loss: float
    """Loss on held-out training samples."""
    objective: float
    """``w_Pᵀ H w_P`` of the mask; for the update, the value of ``δᵀ H δ``."""
    seconds: float
    """Wall seconds since the start."""
    kept: bool = True
    """False for an update that raised the loss, so that the weights are those before it."""


@dataclass(frozen=True)
class SurgeonResult:
    """Masks, and figures of each stage."""

    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept."""
    density: float
    """Share of the prunable weights that is kept; layers differ."""
    stages: list[SurgeonStage] = field(default_factory=list)


def prune_cbs(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    density: float,
    seed: int = 0,
    settings: SurgeonSettings | None = None,
    **layers: Any,
) -> SurgeonResult:
    """Prune a model in place by the Combinatorial Brain Surgeon (arXiv 2203.04466).

    The best of many masks by randomised magnitude is improved by swaps that lower
    ``w_Pᵀ H w_P``, with the empirical Fisher matrix H of the dense model, as long as the loss
    falls (CBS-S). Kept weights then move to the minimum of the quadratic model (CBS-U), unless the
    loss rises. One
    cardinality holds for the whole model. iCBS differs in that gradients are taken again at the
    pruned weights, and in its blocks; this is the baseline.

    Masks are chosen by the loss on held-out training samples.

    Parameters
    ----------
    model, batches, loss
        As for :meth:`icbs.Pruner.prune`.
    density : float
        Share of weights kept in the whole model.
    seed : int, default 0
    settings : SurgeonSettings, optional
    **layers
        ``include``, ``exclude``, ``acceptance_samples``, ``batch_size`` and ``max_memory``, as in
        :class:`icbs.PrunerConfig`.

    Returns
    -------
    SurgeonResult

    Raises
    ------
    ConfigError, LayerError, DataError, MemoryLimitError
        The model's weights are unchanged then.
    """
    chosen = SurgeonSettings() if settings is None else settings
    config = PrunerConfig.of(density=density, seed=seed, curvature="empirical", **layers)
    with evaluation_mode(model) as plain:
        context = RunContext.prepare(plain, batches, loss, config)
        surgeon = _Surgeon(context, chosen)
        try:
            return surgeon.run()
        except BaseException:
            surgeon.apply(np.zeros(len(surgeon.weights), dtype=bool))
            raise


class _Surgeon:
    """The stages, on all weights as one vector."""

    def __init__(self, context: RunContext, settings: SurgeonSettings) -> None:
        self.context, self.settings, self.layers = context, settings, context.layers
        flat = torch.cat([layer.dense.flatten() for layer in self.layers])
        self.weights: npt.NDArray[np.float64] = flat.double().cpu().numpy()
        self.stages: list[SurgeonStage] = []
        self._began = time.perf_counter()

    def run(self) -> SurgeonResult:
        """Run all stages."""
        config, settings = self.context.config, self.settings
        pool = self.context.pool[: settings.fisher_samples]
        rows = GradientRows(
            self.context.model,
            self.layers,
            self.context.objective,
            pool.to(self.layers[0].dense.device),
            batch_size=self.context.plan.together,
        )
        gradients = StoredGradients(rows, config.max_memory or MEMORY)  # at the dense weights
        search = LocalSearch(self.weights, gradients, settings.ridge)
        pruned = self._draw()
        for name, mask in pruned.items():
            self._note(name, mask, search.value(mask))
        best = list(pruned.values())[-1]
        if settings.sweeps:
            best = self._search(search, best)
            self._note("local search", best, search.value(best))
        if settings.update:
            self._update(rows, best)
        kept = sum(layer.num_kept for layer in self.layers)
        masks = {layer.name: layer.mask for layer in self.layers}
        return SurgeonResult(masks, kept / len(self.weights), self.stages)

    def apply(self, pruned: npt.NDArray[np.bool_]) -> float:
        """Set the mask of all layers; return the held-out loss."""
        start = 0
        for layer in self.layers:
            part = torch.from_numpy(pruned[start : start + layer.size])
            layer.set_mask(part.to(layer.dense.device))
            start += layer.size
        return self.context.holdout.measure()

    def _note(self, name: str, pruned: npt.NDArray[np.bool_], objective: float) -> None:
        seconds = time.perf_counter() - self._began
        self.stages.append(SurgeonStage(name, self.apply(pruned), objective, seconds))

    def _draw(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Return the masks by magnitude, and the best of the random ones and that."""
        config = self.context.config
        keep = round(config.density * len(self.weights))
        generator = streams.passes(config.seed)
        flat = torch.from_numpy(self.weights)
        best = magnitude = random_magnitude(flat, keep, None).numpy()
        lowest = self.apply(best)
        for _ in range(self.settings.draws):
            mask = random_magnitude(flat, keep, generator).numpy()
            if (loss := self.apply(mask)) < lowest:
                best, lowest = mask, loss
        return {"magnitude": magnitude, "randomised magnitude": best}

    def _search(self, search: LocalSearch, pruned: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return the mask of lowest loss after any of the sweeps."""
        best, lowest, waited = pruned, self.apply(pruned), 0
        for _ in range(self.settings.sweeps):
            self.apply(np.zeros(len(pruned), dtype=bool))  # gradients are those at dense weights
            pruned, swaps = search.sweep(pruned)
            if not swaps:
                break
            loss = self.apply(pruned)
            waited = 0 if loss < lowest else waited + 1
            if loss < lowest:
                best, lowest = pruned, loss
            if waited == self.settings.patience:
                break
        return best

    def _update(self, rows: GradientRows, pruned: npt.NDArray[np.bool_]) -> None:
        """Move the kept weights to the minimum of the quadratic model."""
        settings = self.settings
        before = self.stages[-1].loss
        self.apply(np.zeros(len(pruned), dtype=bool))
        removed, start = Direction(), 0
        for layer in self.layers:
            layer.pruned = torch.from_numpy(pruned[start : start + layer.size]).to(layer.pruned)
            start += layer.size
            removed.weights[layer.name] = layer.dense * layer.pruned.view(layer.shape)
        form = ClosedForm.of(rows, removed=removed, first_order=settings.first_order)
        change = form.solve(settings.ridge)
        moved = Direction({n: change.weights[n] - removed.weights[n] for n in removed.weights})
        along = rows.along(moved)
        objective = float(along.square().mean()) + settings.ridge * moved.dot(moved)
        for layer in self.layers:
            layer.replace_weights(layer.dense + change.weights[layer.name])
        loss = self.context.holdout.measure()
        # With few samples the quadratic model is bounded whatever the weights, and may mislead.
        kept = loss <= before
        if not kept:
            for layer in self.layers:
                layer.restore_weights()
            self.apply(pruned)
        seconds = time.perf_counter() - self._began
        self.stages.append(SurgeonStage("update", loss, objective, seconds, kept))
