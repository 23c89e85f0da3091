"""Perplexity on windows of test texts, with standard errors by bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icbs.data.losses import CausalLMLoss
from icbs.errors import DataError


@dataclass(frozen=True)
class Perplexity:
    """Losses of a model on test windows."""

    losses: Tensor
    """Mean cross-entropy of each window, in nats per token, shape (windows,), float64."""
    draws: int = 2000
    """Number of bootstrap samples for standard errors."""

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats per token."""
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
        return self._standard_error(self.losses, lambda x, axis: np.exp(x.mean(axis)))

    @property
    def loss_error(self) -> float:
        """Standard error of the mean loss, by bootstrap over windows."""
        return self._standard_error(self.losses, np.mean)

    def gain(self, other: Perplexity) -> tuple[float, float]:
        """Compare the loss with another model's on the same windows.

        Returns
        -------
        difference : float
            Difference of the mean losses, other − this, in nats per token.
        error : float
            Its standard error, by bootstrap over pairs. It is much smaller than that of either
            loss, because the losses of a window are correlated.
        """
        if other.losses.shape != self.losses.shape:
            raise DataError(
                f"{len(self.losses)} and {len(other.losses)} windows can't be compared in pairs; "
                "evaluate both models on the same windows"
            )
        differences = other.losses - self.losses
        return float(differences.mean()), self._standard_error(differences, np.mean)

    def _standard_error(self, values: Tensor, statistic: Callable[..., Any]) -> float:
        """Return the bootstrap standard error of a statistic; 0 for a single value."""
        from scipy.stats import bootstrap  # takes a second to import

        if len(values) < 2:
            return 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # the perplexity may be infinite
            found = bootstrap(
                (values.numpy(),),
                statistic,
                n_resamples=self.draws,
                batch=max(1, (1 << 22) // len(values)),
                vectorized=True,
                method="percentile",
                random_state=0,
            )
        return float(found.standard_error)


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
        See :func:`icbs.lm.pack_windows`.
    batch_size : int
        Windows in a forward pass.
    report : callable, optional
        ``report(done, windows)`` after each forward pass.
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
