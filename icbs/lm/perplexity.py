"""Perplexity on windows that pruning never saw, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.losses import CausalLMLoss
from icbs.errors import DataError


@dataclass(frozen=True)
class Perplexity:
    """What a model makes of held-out windows."""

    losses: Tensor
    """Mean cross-entropy of each window, in nats a token, shape (windows,), float64."""
    draws: int = 2000
    """Bootstrap samples behind the standard errors."""

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats a token."""
        return float(self.losses.mean())

    @property
    def value(self) -> float:
        """Perplexity, ``exp(loss)``."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def error(self) -> float:
        """Standard error of the perplexity, by bootstrap over windows (Efron 1979)."""
        return float(self._means(self.losses).exp().std())

    @property
    def loss_error(self) -> float:
        """Standard error of the mean loss, by the same bootstrap."""
        return float(self._means(self.losses).std())

    def gain(self, other: Perplexity) -> tuple[float, float]:
        """By how much this loss is lower than another's on the same windows.

        Returns
        -------
        difference : float
            Of the mean losses, other − this, in nats a token.
        error : float
            Its standard error, by bootstrap over pairs: hard windows are hard for both, so
            it is far smaller than that of either loss.
        """
        if other.losses.shape != self.losses.shape:
            raise DataError(
                f"{len(self.losses)} and {len(other.losses)} windows can't be compared in pairs"
            )
        differences = other.losses - self.losses
        return float(differences.mean()), float(self._means(differences).std())

    def _means(self, values: Tensor) -> Tensor:
        """Means of bootstrap samples; the same ones every time, shape (draws,)."""
        generator, count = torch.Generator().manual_seed(0), len(values)
        means = [
            values[torch.randint(count, (count,), generator=generator)].mean()
            for _ in range(self.draws)
        ]
        return torch.stack(means)


@torch.no_grad()
def perplexity(
    model: nn.Module,
    windows: Tensor,
    *,
    batch_size: int = 1,
    report: Callable[[int, int], object] | None = None,
) -> Perplexity:
    """Measure a causal language model's perplexity.

    Parameters
    ----------
    model : nn.Module
        Returns logits, a tuple or a ``ModelOutput``.
    windows : Tensor of int64, shape (windows, length)
        As :func:`icbs.lm.pack` makes them.
    batch_size : int
        Windows in a forward pass.
    report : callable, optional
        ``report(done, windows)`` after each.
    """
    was_training, loss = model.training, CausalLMLoss()
    device = next(model.parameters()).device
    found: list[Tensor] = []
    model.eval()
    try:
        for part in windows.split(batch_size):
            tokens = part.to(device)
            outputs: Any = model(tokens)
            found.append(loss.each(outputs, tokens).double().cpu())
            if report is not None:
                report(sum(map(len, found)), len(windows))
    finally:
        model.train(was_training)
    return Perplexity(torch.cat(found))
