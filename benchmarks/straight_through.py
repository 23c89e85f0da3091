"""Straight-through mask training, a method without a quadratic model, for comparison.

Each weight has a score, initialised by its magnitude. The forward pass keeps the weights of
largest score, the backward pass treats the mask as the identity of the scores, and Adam updates
the scores with frozen weights (Ramanujan et al. 2020, arXiv 1911.13299).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call


class _TopK(torch.autograd.Function):
    """Mask of the ``keep`` largest scores, with the identity as its gradient."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, keep: int) -> Tensor:  # type: ignore[override]
        mask = torch.zeros_like(scores).flatten()
        mask[scores.flatten().topk(keep).indices] = 1.0
        return mask.view_as(scores)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def straight_through(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    density: float,
    epochs: int,
    rate: float = 1e-2,
    batch: int = 256,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Train masks of the linear layers' weights, and apply them to the model.

    Returns
    -------
    dict
        Parameter name → mask, 1 where kept.
    """
    weights = {
        f"{name}.weight": module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    keep = {name: round(density * w.numel()) for name, w in weights.items()}
    # Scores of equal scale in all layers, for a common learning rate.
    scores = {name: (w.abs() / w.abs().mean()).requires_grad_() for name, w in weights.items()}
    optimizer = torch.optim.Adam(scores.values(), lr=rate)
    steps = epochs * -(-len(images) // batch)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(batch):
            masked = {
                name: w * _TopK.apply(scores[name], keep[name]) for name, w in weights.items()
            }
            loss = F.cross_entropy(
                functional_call(model, masked, (images[chosen],)), labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
    masks = {name: _TopK.apply(scores[name].detach(), keep[name]) for name in weights}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return masks
