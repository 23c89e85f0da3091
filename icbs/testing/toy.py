"""A small classifier and its samples, for the conformance checks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.model.layer import Layer
from icbs.run.context import RunContext

SAMPLES = 60
LOSS = nn.CrossEntropyLoss()


def make_model() -> nn.Module:
    """Make a convolution and two linear layers, in float64, with fixed weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(64, 10),
            nn.Tanh(),
            nn.Linear(10, 3),
        )
    return model.double().eval()


def make_samples() -> Samples:
    """Make images of 4 × 4 pixels, in three linearly separable classes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 1, 4, 4, generator=generator, dtype=torch.float64)
    truth = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    return Samples(x, (x.flatten(1) @ truth).argmax(dim=1))


def make_layers(model: nn.Module, density: float = 0.5) -> list[Layer]:
    """Prune half of the weights of each layer, at random."""
    layers = find_layers(model, PrunerConfig(density=density))
    generator = torch.Generator().manual_seed(2)
    for layer in layers:
        order = torch.randperm(layer.size, generator=generator)
        pruned = torch.ones(layer.size, dtype=torch.bool)
        pruned[order[: layer.num_keep]] = False
        layer.set_mask(pruned)
    return layers


def make_objective() -> Objective:
    """Make the loss of the classifier."""
    return Objective(LOSS)


def make_context(config: PrunerConfig) -> RunContext:
    """Prepare a run on the classifier."""
    samples = make_samples()
    return RunContext.prepare(make_model(), [(samples.inputs, samples.targets)], LOSS, config)


def some_sets(layer: Layer, count: int = 4, size: int = 3) -> list[Tensor]:
    """Draw disjoint sets of weights of one layer, each all pruned or all kept."""
    sets = []
    for side in (layer.pruned, ~layer.pruned):
        members = side.nonzero().squeeze(1)[: count // 2 * size]
        sets += list(members.split(size))
    return sets
