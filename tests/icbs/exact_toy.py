"""A classifier whose weights and samples have the same bits on every machine."""

from __future__ import annotations

import torch
from torch import nn

from tests.icbs.conftest import Toy


def spread(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """Distinct multiples of a power of two between -1 and 1, in random order."""
    size = torch.Size(shape).numel()
    numbers = 2 * torch.randperm(size, generator=generator) + 1 - size
    return (numbers.double() / (1 << size.bit_length())).view(shape)


def make_exact_toy() -> Toy:
    """Nothing is trained: labels are mostly those that the model gives."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(2 * spread(*parameter.shape, generator=generator))
    x = spread(240, 8, generator=generator)
    y = torch.randint(3, (240,), generator=generator)
    with torch.no_grad():
        scores = model(x) + 0.5 * torch.eye(3, dtype=torch.float64)[y]
    return Toy(model, [(x, scores.argmax(dim=1))], nn.CrossEntropyLoss())
