"""Fine-tuning and gradual magnitude pruning for a given time, as rivals of a recovery.

The share of pruned weights follows the cubic schedule of Zhu and Gupta (2017, arXiv 1710.01878),
``s_t = s (1 - (1 - t)^3)``, while Adam trains the weights that are kept.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config.constants import MAX_SAMPLES
from icbs.data.losses import logits_of
from icbs.data.objective import Loss
from icbs.data.samples import Samples, read_samples
from icbs.selection.scores import initial_mask

EVERY = 16
"""Updates between two changes of the mask."""
RAMP = 0.7
"""Share of the time in which the density falls; the mask is fixed in the rest."""
HELD_OUT = 0.2
CHECKS = 20
"""Number of measurements of the held-out loss in the time with the final mask."""


def train_pruned(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    density: float,
    seconds: float,
    gradual: bool,
    taught: bool = False,
    shared: bool = False,
    rate: float = 1e-3,
    batch: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Train a model's linear layers under a magnitude mask, in place.

    Parameters
    ----------
    model : nn.Module
        Dense, in evaluation mode.
    batches : iterable of (inputs, targets)
        A fifth of the samples is held out; the model gets the state of lowest held-out loss
        among those with the final mask.
    loss : callable
    density : float
        Share of the weights kept in each linear layer.
    seconds : float
        Processor time, after which the learning rate is 0.
    gradual : bool
        Whether the density falls step by step; otherwise the mask is that of the dense weights.
    taught : bool
        Whether the targets are the dense model's class probabilities, instead of labels.
    shared : bool
        Whether one threshold for all layers chooses the weights, instead of one for each.
    rate : float
        Initial learning rate of Adam, which falls linearly.
    batch : int
        Samples of an update.
    seed : int
        Seed of the held-out samples and of the order.

    Returns
    -------
    dict
        ``heldout`` (loss of the result), ``updates`` (their number), and ``masks`` by layer name.
    """
    began = time.process_time()
    samples = read_samples(batches, MAX_SAMPLES)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples), generator=generator)
    count = max(1, round(HELD_OUT * len(samples)))
    data, held = samples[order[count:]], samples[order[:count]]
    teacher = copy.deepcopy(model) if taught else None
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.95))
    ramp, now = (RAMP, 1.0) if gradual else (0.0, density)
    masks = _masks(layers, now, shared)
    best, kept, updates, checked = math.inf, model.state_dict(), 0, -math.inf
    parts: list[Tensor] = []
    while (passed := (time.process_time() - began) / seconds) < 1 or math.isinf(best):
        if now > density and (updates % EVERY == 0 or passed >= ramp):
            now = density + (1 - density) * (1 - min(1.0, passed / ramp)) ** 3
            masks = _masks(layers, now, shared)
        _apply(layers, masks)
        if now == density and passed >= checked + (1 - ramp) / CHECKS:
            value = _measure(model, held, loss)
            if value < best:
                best, kept = value, copy.deepcopy(model.state_dict())
            checked = passed
        if not parts:
            parts = list(torch.randperm(len(data), generator=generator).split(batch))
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.0, 1 - passed)
        _update(model, teacher, data[parts.pop()], loss, optimizer)
        updates += 1
    model.load_state_dict(kept)
    return {"heldout": best, "updates": updates, "masks": masks}


def _masks(layers: Mapping[str, nn.Linear], density: float, shared: bool) -> dict[str, Tensor]:
    """Return masks of the largest weights of each layer, or of all."""
    scores = {name: layer.weight.detach().abs() for name, layer in layers.items()}
    counts = {name: round(density * score.numel()) for name, score in scores.items()}
    if shared:
        flat = torch.cat([score.flatten() for score in scores.values()])[None]
        sizes = [score.numel() for score in scores.values()]
        parts = initial_mask(flat, sum(counts.values()), "layer").split(sizes)
    else:
        parts = tuple(initial_mask(score, counts[name], "layer") for name, score in scores.items())
    found = zip(scores.items(), parts, strict=True)
    return {name: ~part.view_as(score) for (name, score), part in found}


@torch.no_grad()
def _apply(layers: Mapping[str, nn.Linear], masks: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        layers[name].weight.masked_fill_(~mask, 0)


@torch.no_grad()
def _measure(model: nn.Module, samples: Samples, loss: Loss) -> float:
    return float(loss(model(samples.inputs), samples.targets))


def _update(
    model: nn.Module,
    teacher: nn.Module | None,
    part: Samples,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Take a step of the optimizer on the samples of an update."""
    targets = part.targets
    if teacher is not None:
        with torch.no_grad():
            targets = logits_of(teacher(part.inputs)).softmax(dim=-1)
    optimizer.zero_grad()
    loss(model(part.inputs), targets).backward()
    optimizer.step()
