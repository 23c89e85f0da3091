"""Losses for models that return logits, a tuple with logits, or a ``ModelOutput``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icbs.data.samples import IGNORED
from icbs.errors import DataError


def logits_of(outputs: Any) -> Tensor:
    """Return the logits in a model's outputs.

    Parameters
    ----------
    outputs : Tensor, mapping, tuple or list
        The logits; a mapping (such as a ``ModelOutput``) with ``logits``; or a sequence, whose
        first tensor of two or more dimensions is taken.

    Raises
    ------
    DataError
        If there are none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if hasattr(outputs, "keys"):
        found = outputs.get("logits")
    elif isinstance(outputs, tuple | list):
        # A model that gets labels returns its own loss, a scalar, first.
        found = next((o for o in outputs if isinstance(o, Tensor) and o.ndim >= 2), None)
    else:
        found = getattr(outputs, "logits", None)
    if not isinstance(found, Tensor):
        raise DataError(
            f"the model returned {type(outputs).__name__} without logits; use a model with a "
            "head (such as AutoModelForCausalLM), or a loss that takes its outputs"
        )
    return found


def widened(tensor: Tensor) -> Tensor:
    """Convert half precision to single precision; return other tensors unchanged."""
    half = tensor.is_floating_point() and tensor.element_size() < 4
    return tensor.float() if half else tensor


class CausalLMLoss:
    """Cross-entropy of each next token in nats, averaged within each sequence first.

    A sample is a sequence. Its loss is the mean over its labels other than −100, and the loss
    of a batch is the mean over its sequences, whatever their numbers of labels.
    """

    def __call__(self, outputs: Any, labels: Tensor) -> Tensor:
        """Return the mean loss.

        Parameters
        ----------
        outputs : see :func:`logits_of`
            Logits of shape (N, T, vocabulary); those at t predict the token at t + 1.
        labels : Tensor of int64, shape (N, T)
            The tokens, −100 at ignored positions.
        """
        return self.each(outputs, labels).mean()

    def each(self, outputs: Any, labels: Tensor) -> Tensor:
        """Return each sequence's loss, shape (N,); 0 for a sequence of ignored labels only."""
        logits = logits_of(outputs)
        if logits.ndim != 3 or logits.shape[:2] != labels.shape:
            raise DataError(
                f"logits of shape {tuple(logits.shape)} do not match labels of shape "
                f"{tuple(labels.shape)}; a causal language model returns (N, T, vocabulary)"
            )
        following = labels[:, 1:]
        wide = torch.promote_types(logits.dtype, torch.float32)
        losses = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).to(wide),
            following.flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        counted = (following != IGNORED).sum(dim=1)
        return losses.view_as(following).sum(dim=1) / counted.clamp(min=1)

    def sample(self, outputs: Any, generator: torch.Generator) -> Tensor:
        """Draw each next token from the model's distribution; returns labels of shape (N, T).

        The first position, which no logits predict, gets −100.
        """
        logits = logits_of(outputs)
        drawn = torch.full(logits.shape[:2], IGNORED, device=logits.device)
        shares = logits[:, :-1].flatten(0, 1).float().softmax(-1).cpu()
        tokens = torch.multinomial(shares, 1, generator=generator)
        drawn[:, 1:] = tokens.view(len(logits), -1).to(logits.device)
        return drawn


class ClassificationLoss:
    """Cross-entropy of classes, for models that return more than a tensor of logits.

    Targets are class indices, shape (N,), or class probabilities, shape (N, classes), such as
    the dense model's predictions.
    """

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the mean loss; see :func:`logits_of` for ``outputs``."""
        return F.cross_entropy(widened(logits_of(outputs)), targets)

    def sample(self, outputs: Any, generator: torch.Generator) -> Tensor:
        """Draw classes from the model's distribution, shape (N,)."""
        shares = widened(logits_of(outputs)).softmax(-1).cpu()
        drawn = torch.multinomial(shares, 1, generator=generator)
        return drawn.squeeze(1).to(logits_of(outputs).device)
