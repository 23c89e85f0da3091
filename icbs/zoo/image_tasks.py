"""Image classification tasks: accuracy and loss on test images, with standard errors."""

from __future__ import annotations

from collections.abc import Callable
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

    def correct(candidate: nn.Module) -> Tensor:
        return outputs(candidate).argmax(dim=1) == classes

    def evaluate(candidate: nn.Module) -> dict[str, float]:
        return classification(outputs(candidate), targets, classes)

    more = {"losses": losses, "correct": correct} | more
    return Task(name, model, batches, ClassificationLoss(), evaluate, **more)


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


def per_sample(inputs: Tensor, classes: Tensor) -> dict[str, Callable[[nn.Module], Tensor]]:
    """Return the fields ``losses`` and ``correct`` of the task of a small classifier.

    Parameters
    ----------
    inputs : Tensor, shape (samples, ...)
        Test samples, all in one forward pass.
    classes : Tensor of int64, shape (samples,)
    """

    @torch.no_grad()
    def losses(candidate: nn.Module) -> Tensor:
        return F.cross_entropy(candidate(inputs), classes, reduction="none").double()

    @torch.no_grad()
    def correct(candidate: nn.Module) -> Tensor:
        return candidate(inputs).argmax(dim=1) == classes

    return {"losses": losses, "correct": correct}
