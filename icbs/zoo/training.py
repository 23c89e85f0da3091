"""Training of the tasks' dense models, cached and reproducible on the same machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from icbs.data.losses import logits_of
from icbs.downloads import cache_folder
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


@dataclass(frozen=True)
class Recipe:
    """Training of a perceptron with Adam, whose learning rate decreases linearly to 0."""

    batch: int
    """Samples in a batch."""
    rate: float
    """Learning rate at the start."""
    decay: float
    """L2 penalty."""

    def cache_path(self, name: str, seed: int, epochs: int) -> Path:
        """Return the path of a trained model in :func:`icbs.downloads.cache_folder`."""
        recipe = f"{seed} {epochs} {self.batch} {self.rate} {self.decay} {torch.__version__}"
        digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
        return cache_folder() / f"{name}-{digest}.safetensors"

    def train(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int,
        epochs: int,
        report: Report | None = None,
    ) -> None:
        """Train a classifier in place; equal seeds give equal weights on the same machine."""
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            bound = parameter.shape[-1] ** -0.5
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=generator)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate, weight_decay=self.decay)
        steps = epochs * -(-len(images) // self.batch)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        fit(
            model, images, labels, optimizer, decay,
            batch=self.batch, epochs=epochs, generator=generator, report=report,
        )  # fmt: skip


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
