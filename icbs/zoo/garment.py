"""The garment classifier: a 784-512-512-10 perceptron on Fashion-MNIST."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from icbs.downloads import cache_folder
from icbs.zoo import fashion_mnist
from icbs.zoo.image_tasks import classification
from icbs.zoo.task import Count, Seed, Task
from icbs.zoo.training import Report, fit, load_or_train

EPOCHS = 10
BATCH = 256
RATE = 1e-3
DECAY = 1e-5


def classifier() -> nn.Sequential:
    """Return the untrained network."""
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def load(seed: Seed = 0, epochs: Count = EPOCHS, report: Report | None = None) -> Task:
    """Load the task; the dense model is trained at first use and cached as safetensors.

    Parameters
    ----------
    seed : int
        Seed of initialisation and sample order.
    epochs : int
        Epochs of training with Adam (learning rate 1e-3, decreasing linearly to 0, batches of
        256, L2 penalty 1e-5).
    report : callable, optional
        ``report(epoch, loss)`` after each epoch of training.
    """
    images, labels = fashion_mnist.load("train")
    test_images, test_labels = fashion_mnist.load("t10k")
    model = classifier()
    load_or_train(
        model,
        cache_path(seed, epochs),
        lambda: train(model, images, labels, seed=seed, epochs=epochs, report=report),
    )

    @torch.no_grad()
    def evaluate(candidate: nn.Module) -> dict[str, float]:
        return classification(candidate(test_images), test_labels)

    return Task("garment", model, [(images, labels)], nn.CrossEntropyLoss(), evaluate)


def train(
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
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, weight_decay=DECAY)
    steps = epochs * -(-len(images) // BATCH)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    fit(
        model, images, labels, optimizer, decay,
        batch=BATCH, epochs=epochs, generator=generator, report=report,
    )  # fmt: skip


def cache_path(seed: int, epochs: int) -> Path:
    """Return the path of the trained model in :func:`icbs.downloads.cache_folder`."""
    recipe = f"{seed} {epochs} {BATCH} {RATE} {DECAY} {torch.__version__}"
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return cache_folder() / f"garment-{digest}.safetensors"
