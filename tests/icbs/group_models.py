"""Small trained models with groups, and the inputs of group tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.groups.finding import find_groups
from icbs.groups.grouping import Grouping

LOSS = nn.CrossEntropyLoss()
Batches = list[tuple[Tensor, Tensor]]


def data(shape: tuple[int, ...] = (6,), count: int = 240) -> Batches:
    """Samples of three classes with noise, so that no model is certain."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    truth = torch.randn(x[0].numel(), 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    scale = float(x[0].numel()) ** 0.5
    return [(x, (torch.tanh(x.flatten(1)) @ truth + scale * noise).argmax(dim=1))]


def trained(model: nn.Module, batches: Batches, steps: int = 60) -> nn.Module:
    """Train in float64 and return in evaluation mode."""
    model = model.double().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=1e-3)
    ((x, y),) = batches
    for _ in range(steps):
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


def perceptron() -> tuple[nn.Module, Batches]:
    """Two hidden dimensions, of 10 and 8 neurons."""
    batches = data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)]
        return trained(nn.Sequential(*layers), batches), batches


def convolutions() -> tuple[nn.Module, Batches]:
    """Two convolutions with batch normalisation, 6 and 5 channels, and a linear layer."""
    batches = data((2, 6, 6))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(45, 3),
        )
        return trained(model, batches), batches


def grouping_of(model: nn.Module, batches: Batches, groups: str, **settings: Any) -> Grouping:
    """Groups of a model, all kept."""
    config = PrunerConfig.of(**({"groups": groups, "density": 0.5} | settings))
    return find_groups(model, batches[0][0][:1], config)
