"""A small trained classifier for tests."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import nn


@dataclass
class Toy:
    """Model, data and loss."""

    model: nn.Module
    batches: list[tuple[torch.Tensor, torch.Tensor]]
    loss: nn.Module

    @property
    def samples(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([x for x, _ in self.batches]), torch.cat([y for _, y in self.batches])


def make_toy(dtype: torch.dtype = torch.float32, seed: int = 0) -> Toy:
    """Return copies, which a test may change."""
    model, x, y = (copy.deepcopy(part) for part in _trained(dtype, seed))
    batches = [(x[i : i + 100], y[i : i + 100]) for i in range(0, 600, 100)]
    return Toy(model, batches, nn.CrossEntropyLoss())


@cache
def _trained(dtype: torch.dtype, seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Train once in a process: hundreds of tests use it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(600, 12, generator=generator, dtype=dtype)
    truth = torch.randn(12, 4, generator=generator, dtype=dtype)
    y = (x @ truth).relu().argmax(dim=1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 4)
        ).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = nn.CrossEntropyLoss()
    for _ in range(60):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    model.zero_grad()
    return model, x, y


@pytest.fixture
def toy() -> Toy:
    return make_toy()


@pytest.fixture
def toy64() -> Toy:
    return make_toy(torch.float64)
