"""Perceptrons for handwritten digits that are small enough for one problem of all weights.

``digits`` has 208 weights, and its quadratic model can be solved to proven optimality. ``tiny``
has 24, and all of its masks can be evaluated (:func:`icbs.true_optimum`). They compute in
float64, so that rounding decides nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icbs.zoo.image_tasks import classification, per_sample
from icbs.zoo.optical_digits import load_digits, pooled, split
from icbs.zoo.task import Count, Seed, Task
from icbs.zoo.training import Recipe, Report, load_or_train

EPOCHS = 60
RECIPE = Recipe(batch=64, rate=1e-2, decay=1e-4)
TINY_DIGITS = (0, 6, 7, 9)
"""The digits of ``tiny``, which differ by the ink in the four quarters of the image."""


def load(seed: Seed = 0, epochs: Count = EPOCHS, report: Report | None = None) -> Task:
    """Load the task ``digits``: ten digits by 4 × 4 pixels, a 16-8-10 perceptron.

    Parameters
    ----------
    seed : int
        Seed of initialisation and sample order.
    epochs : int
        Epochs of training with Adam (learning rate 1e-2, decreasing linearly to 0, batches of
        64, L2 penalty 1e-4).
    report : callable, optional
        ``report(epoch, loss)`` after each epoch of training.
    """
    images, labels = load_digits()
    return _task("digits", (16, 8, 10), pooled(images, 2), labels, seed, epochs, report)


def load_tiny(seed: Seed = 0, epochs: Count = EPOCHS, report: Report | None = None) -> Task:
    """Load the task ``tiny``: four digits by the ink in four quarters, a 4-3-4 perceptron.

    Parameters
    ----------
    seed, epochs, report
        As for :func:`load`.
    """
    images, labels = load_digits()
    chosen = torch.isin(labels, torch.tensor(TINY_DIGITS))
    classes = torch.searchsorted(torch.tensor(TINY_DIGITS), labels[chosen])
    return _task("tiny", (4, 3, 4), pooled(images[chosen], 4), classes, seed, epochs, report)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return an untrained network with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).double()


def _task(
    name: str,
    sizes: tuple[int, int, int],
    features: Tensor,
    labels: Tensor,
    seed: int,
    epochs: int,
    report: Report | None,
) -> Task:
    """Return the task of a perceptron, trained at first use and cached as safetensors."""
    training, (test_features, test_labels) = split(features, labels)
    model = perceptron(*sizes)
    load_or_train(
        model,
        RECIPE.cache_path(name, seed, epochs),
        lambda: RECIPE.train(model, *training, seed=seed, epochs=epochs, report=report),
    )

    @torch.no_grad()
    def evaluate(candidate: nn.Module) -> dict[str, float]:
        return classification(candidate(test_features), test_labels)

    about = (
        f"{len(training[1]):,} handwritten digits for pruning, {len(test_labels):,} for testing, "
        f"{sizes[0] * sizes[1] + sizes[1] * sizes[2]} weights"
    )
    figures = per_sample(test_features, test_labels)
    return Task(name, model, [training], nn.CrossEntropyLoss(), evaluate, about=about, **figures)
