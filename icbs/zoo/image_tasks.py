"""Image classification tasks: accuracy and loss on test images, with standard errors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs.data.losses import ClassificationLoss, logits_of
from icbs.formatting import STANDARD_ERROR
from icbs.zoo.task import Task


def image_task(
    name: str, model: nn.Module, batches: Any, images: Tensor, targets: Tensor, **more: Any
) -> Task:
    """Return the task of a classifier.

    Parameters
    ----------
    name : str
    model : nn.Module
        Trained classifier.
    batches : iterable of (images, targets)
        Training samples.
    images : Tensor, shape (samples, channels, height, width)
        Test images.
    targets : Tensor
        Classes of the test images, shape (samples,), or class probabilities, shape
        (samples, classes), whose largest counts as correct.
    **more
        Further fields of :class:`icbs.zoo.Task`.
    """
    classes = targets if targets.ndim == 1 else targets.argmax(dim=1)

    @torch.no_grad()
    def outputs(candidate: nn.Module) -> Tensor:
        return torch.cat([logits_of(candidate(part)) for part in images.split(500)])

    def losses(candidate: nn.Module) -> Tensor:
        return F.cross_entropy(outputs(candidate), targets, reduction="none").double()

    def evaluate(candidate: nn.Module) -> dict[str, float]:
        return classification(outputs(candidate), targets, classes)

    return Task(name, model, batches, ClassificationLoss(), evaluate, losses=losses, **more)


def classification(
    outputs: Tensor, targets: Tensor, classes: Tensor | None = None
) -> dict[str, float]:
    """Compute accuracy and loss of a classifier.

    Parameters
    ----------
    outputs : Tensor, shape (samples, classes)
        Logits.
    targets : Tensor
        Classes, shape (samples,), or class probabilities, shape (samples, classes).
    classes : Tensor of int64, shape (samples,), optional
        Correct classes, if the targets are probabilities.

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
