"""Test figures of classifiers, with their standard errors."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icbs.formatting import STANDARD_ERROR


def classification(
    outputs: Tensor, targets: Tensor, classes: Tensor | None = None
) -> dict[str, float]:
    """Score a classifier.

    Parameters
    ----------
    outputs : Tensor, shape (samples, classes)
        Logits.
    targets : Tensor
        Labels, shape (samples,), or probabilities, shape (samples, classes).
    classes : Tensor of int64, shape (samples,), optional
        Labels that count as right, where the targets are probabilities.

    Returns
    -------
    dict
        ``accuracy`` in [0, 1] and ``loss`` (mean cross-entropy in nats), each with the standard
        error of the mean over samples.
    """
    right = outputs.argmax(dim=1) == (targets if classes is None else classes)
    losses = F.cross_entropy(outputs, targets, reduction="none")
    root = len(outputs) ** 0.5
    return {
        "accuracy": float(right.float().mean()),
        "accuracy" + STANDARD_ERROR: float(right.double().std(correction=0)) / root,
        "loss": float(F.cross_entropy(outputs, targets)),
        "loss" + STANDARD_ERROR: float(losses.double().std()) / root,
    }
