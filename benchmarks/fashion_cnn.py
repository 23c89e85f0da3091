"""A small CNN with batch normalisation on Fashion-MNIST, trained for Network Slimming."""

from __future__ import annotations

import torch
from torch import nn

from icbs.groups.slimming import shrink_scales
from icbs.zoo import Task, fashion_mnist
from icbs.zoo.image_tasks import image_task
from icbs.zoo.training import Recipe, fit, load_or_train

EPOCHS = 4
RECIPE = Recipe(batch=128, rate=3e-3, decay=0.0)
SPARSITY = 1e-4
"""Weight of the L1 norm of the scales in training (arXiv 1708.06519)."""


def network(widths: tuple[int, ...] = (16, 32, 64)) -> nn.Sequential:
    """Return three convolutions with batch normalisation, and a linear layer."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 28, 28))]
    before = 1
    for number, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers.append(nn.ReLU())
        if number + 1 < len(widths):
            layers.append(nn.MaxPool2d(2))
        before = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]
    return nn.Sequential(*layers)


def load(samples: int = 12_000, seed: int = 0, epochs: int = EPOCHS) -> Task:
    """Load the task; the network is trained at first use, with an L1 penalty on its scales."""
    images, labels = fashion_mnist.load("train")
    test_images, test_labels = fashion_mnist.load("t10k")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network()
    path = RECIPE.cache_path("fashion-cnn", seed, epochs)

    def train() -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE.rate)
        steps = epochs * -(-len(images) // RECIPE.batch)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        generator = torch.Generator().manual_seed(seed)
        with shrink_scales(model.train(), SPARSITY):
            fit(
                model, images, labels, optimizer, decay,
                batch=RECIPE.batch, epochs=epochs, generator=generator,
                report=lambda epoch, loss: print(f"epoch {epoch}: loss {loss:.4f}", flush=True),
            )  # fmt: skip

    load_or_train(model, path, train)
    return image_task(
        "fashion_cnn",
        model.eval(),
        [(images[:samples], labels[:samples])],
        test_images,
        test_labels,
    )
