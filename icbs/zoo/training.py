"""Training of the tasks' dense models, cached and reproducible on the same machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from icbs.data.losses import logits_of
from icbs.errors import DataError
from problems.files import atomic, regular

#: ``report(epoch, loss)`` after each epoch.
Report = Callable[[int, float], object]


def load_or_train(model: nn.Module, path: Path, train: Callable[[], object]) -> None:
    """Load a model's weights from a file, or train it and write the file.

    Raises
    ------
    DataError
        If the file is damaged, or of another model.
    """
    if path.exists():
        try:
            model.load_state_dict(load_file(regular(path)))
        except (OSError, SafetensorError, ValueError, LookupError, RuntimeError) as error:
            raise DataError(
                f"{path} is not the trained model ({error!s:.300}); remove it to train the model "
                "again"
            ) from error
        return
    train()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        save_file(model.state_dict(), temporary)


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    decay: torch.optim.lr_scheduler.LRScheduler,
    *,
    batch: int,
    epochs: int,
    generator: torch.Generator,
    report: Report | None = None,
) -> None:
    """Minimise the cross-entropy; each epoch's order of samples is drawn from ``generator``.

    The learning rate follows ``decay`` in each step.
    """
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(logits_of(model(images[chosen])), labels[chosen])
            loss.backward()
            optimizer.step()
            decay.step()
            total += float(loss.detach()) * len(chosen)
        if report is not None:
            report(epoch + 1, total / len(images))
