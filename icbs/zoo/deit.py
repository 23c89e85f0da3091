"""A small vision transformer of the DeiT architecture (arXiv 2012.12877) on Fashion-MNIST."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from icbs.downloads import cache_folder
from icbs.downloads.optional import optional
from icbs.zoo import fashion_mnist
from icbs.zoo.image_tasks import image_task
from icbs.zoo.task import Count, Seed, Task
from icbs.zoo.training import Report, fit, load_or_train

WIDTH, DEPTH, HEADS, PATCH = 96, 4, 3, 7
BATCH = 128
RATE, DECAY = 1e-3, 0.05


def classifier() -> Any:
    """Return the untrained network: a class token, a distillation token and 16 patches."""
    transformers = optional("transformers")
    config = transformers.DeiTConfig(
        image_size=28,
        patch_size=PATCH,
        num_channels=1,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        num_labels=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.DeiTForImageClassification(config)


def load(seed: Seed = 0, epochs: Count = 5, report: Report | None = None) -> Task:
    """Load the task; the dense model is trained at first use and cached as safetensors.

    Parameters
    ----------
    seed : int
        Seed of initialisation and sample order.
    epochs : int
        Epochs of training with AdamW (learning rate 1e-3 with warm-up and cosine decay,
        batches of 128).
    report : callable, optional
        ``report(epoch, loss)`` after each epoch of training.

    Raises
    ------
    MissingPackageError
        If transformers, which has the model, is not installed.
    """
    images, labels = square(fashion_mnist.load("train"))
    test_images, test_labels = square(fashion_mnist.load("t10k"))
    model = classifier()
    recipe = f"{seed} {epochs} {BATCH} {RATE} {DECAY} {model.config} {torch.__version__}"
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    path = cache_folder() / f"deit-{digest}.safetensors"
    load_or_train(
        model,
        path,
        lambda: train(model, images, labels, seed=seed, epochs=epochs, report=report),
    )
    return image_task("deit", model.eval(), [(images, labels)], test_images, test_labels)


def square(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Reshape images to (samples, 1, 28, 28) and scale them to [−1, 1]."""
    images, labels = data
    return (images.view(-1, 1, 28, 28) - 0.5) / 0.5, labels


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    epochs: int,
    report: Report | None = None,
) -> None:
    """Train in place; equal seeds give equal weights on the same machine."""
    generator = torch.Generator().manual_seed(seed)
    initialise(model, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    steps = epochs * -(-len(images) // BATCH)
    warm = max(1, steps // 20)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warm) * (1 + math.cos(math.pi * step / steps)) / 2,
    )
    model.train()
    fit(
        model, images, labels, optimizer, decay,
        batch=BATCH, epochs=epochs, generator=generator, report=report,
    )  # fmt: skip
    model.eval()


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Initialise all weights from one generator, independent of torch's global one."""
    for name, parameter in model.named_parameters():
        if "layernorm" in name:
            parameter.fill_(float(name.endswith("weight")))
        elif name.endswith("bias"):
            parameter.zero_()
        elif "embeddings" in name and parameter.ndim == 3:
            parameter.normal_(0, 0.02, generator=generator)
        else:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
