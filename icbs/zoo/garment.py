"""The garment classifier: a 784-512-512-10 perceptron on Fashion-MNIST."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from icbs.zoo import fashion_mnist
from icbs.zoo.image_tasks import classification, per_sample
from icbs.zoo.task import Count, Seed, Task
from icbs.zoo.training import Recipe, Report, load_or_train

EPOCHS = 10
RECIPE = Recipe(batch=256, rate=1e-3, decay=1e-5)


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
        RECIPE.cache_path("garment", seed, epochs),
        lambda: RECIPE.train(model, images, labels, seed=seed, epochs=epochs, report=report),
    )

    @torch.no_grad()
    def evaluate(candidate: nn.Module) -> dict[str, float]:
        return classification(candidate(test_images), test_labels)

    figures: dict[str, Any] = per_sample(test_images, test_labels)
    return Task("garment", model, [(images, labels)], nn.CrossEntropyLoss(), evaluate, **figures)
