"""The loss, and what pruning must know about it: how it averages, what it predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs.errors import DataError
from icbs.positions import IGNORED
from icbs.samples import Samples
from icbs.trees import call

Loss = Callable[[Any, Tensor], Tensor]


class Objective:
    """A loss over a batch, made to mean "average over samples".

    Per-sample gradients come out of one backward pass only if the loss of a batch is the
    mean (or the sum) of its samples' losses; :meth:`check` measures which it is.
    """

    def __init__(self, loss: Loss, *, sums: bool = False) -> None:
        self.loss = loss
        self.sums = sums

    @classmethod
    def check(cls, loss: Loss, model: nn.Module, few: Samples, targets: Tensor) -> Objective:
        """Try the loss on a few samples, together and one by one; check all ``targets``.

        Raises
        ------
        DataError
            If a target is out of range, the loss is not finite, or the loss of a batch is
            neither the mean nor the sum over its samples.
        """
        with torch.no_grad():
            outputs = call(model, few.inputs)
            _check_labels(outputs, targets)
            together = loss(outputs, few.targets)
            if not (isinstance(together, Tensor) and together.ndim == 0):
                raise DataError(
                    "loss must return one number; set its reduction to 'mean' "
                    f"(it returned shape {tuple(getattr(together, 'shape', ()))})"
                )
            each = [loss(call(model, s.inputs), s.targets) for s in _singles(few)]
        apart = torch.stack(each)
        if not torch.isfinite(together) or not torch.isfinite(apart).all():
            raise DataError(f"the loss of the dense model is {float(together)}; it must be finite")
        if torch.allclose(together, apart.mean(), rtol=1e-3, atol=1e-5):
            return cls(loss)
        if torch.allclose(together, apart.sum(), rtol=1e-3, atol=1e-5):
            return cls(loss, sums=True)
        raise DataError(
            f"the loss of {len(few)} samples together is {float(together):.6g}, the mean of their "
            f"losses {float(apart.mean()):.6g}: use a loss that averages over samples "
            "(reduction='mean', no class weights, no coupling between samples)"
        )

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Sum of the samples' losses."""
        value = self.loss(outputs, targets)
        return value if self.sums else value * len(targets)

    def mean(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean of the samples' losses."""
        value = self.loss(outputs, targets)
        return value / len(targets) if self.sums else value

    def sample_targets(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Draw targets from the model's own predictive distribution.

        Their gradients' covariance is the Fisher information (Kunstner et al. 2019,
        arXiv 1905.12558), which the data's labels only approximate. Cross-entropy
        predicts a categorical, binary cross-entropy a Bernoulli, and the squared error a
        normal distribution; any other loss may bring a method ``sample(outputs,
        generator)``.

        Raises
        ------
        DataError
            If the loss has no known distribution.
        """
        drawn = self._draw(outputs, generator)
        if targets.is_floating_point() or targets.shape != drawn.shape:
            return drawn
        # What does not count among the data's labels does not count here.
        return torch.where(targets == IGNORED, targets, drawn)

    def _draw(self, outputs: Any, generator: torch.Generator) -> Tensor:
        if hasattr(self.loss, "sample"):
            return self.loss.sample(outputs, generator)
        if self._is(nn.CrossEntropyLoss, F.cross_entropy):
            classes = outputs.shape[1]
            logits = outputs.movedim(1, -1).reshape(-1, classes)
            drawn = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)
            return drawn.to(outputs.device).view(outputs.movedim(1, -1).shape[:-1])
        if self._is(nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits):
            drawn = torch.bernoulli(outputs.sigmoid().cpu(), generator=generator)
            return drawn.to(outputs.device)
        if self._is(nn.MSELoss, F.mse_loss):
            # ‖o − y‖²/D is the negative log-likelihood of a normal of variance D/2.
            size = outputs[0].numel() if not self.sums else 1
            noise = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
            return outputs + noise.to(outputs.device) * (size / 2) ** 0.5
        raise DataError(
            "curvature 'monte-carlo' must draw targets, and this loss has no known "
            "distribution: use curvature='empirical', or give the loss a method "
            "sample(outputs, generator)"
        )

    def _is(self, kind: type[nn.Module], function: Any) -> bool:
        return isinstance(self.loss, kind) or self.loss is function


def _singles(samples: Samples) -> list[Samples]:
    return [samples[i : i + 1] for i in range(len(samples))]


def _check_labels(outputs: Any, targets: Tensor) -> None:
    """Refuse class labels outside of the model's outputs, before an index fails deep inside."""
    if targets.is_floating_point() or not isinstance(outputs, Tensor) or outputs.ndim < 2:
        return
    if targets.ndim != outputs.ndim - 1:
        return
    labels = targets[targets != IGNORED]
    classes = outputs.shape[1]
    if not len(labels):
        raise DataError(f"every label is {IGNORED} (ignored): there is nothing to learn from")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but the model has {classes} outputs: "
            f"labels must be 0 … {classes - 1}"
        )
