"""Incremental evaluation compared with evaluation from scratch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from icbs.config import PrunerConfig
from icbs.data.holdout import HoldOut
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.model.layer import Layer


def flip(layer: Layer, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Prune or restore a few weights; returns their indices and changes."""
    index = torch.randperm(layer.size, generator=generator)[:9]
    rows, columns = layer.unravel(index)
    before = layer.weight[rows, columns].clone()
    layer.set_block(index, ~layer.pruned[index])
    return index, layer.weight[rows, columns] - before


def test_trials_commits_and_rejections_agree_with_scratch(toy64):
    layers = find_layers(toy64.model, PrunerConfig(density=0.5))
    samples = Samples(*toy64.samples)
    objective = Objective(toy64.loss)
    holdout = HoldOut(toy64.model, layers, objective, samples, batch_size=128)
    with torch.no_grad():
        assert holdout.measure() == pytest.approx(
            float(toy64.loss(toy64.model(samples.inputs), samples.targets))
        )
    generator = torch.Generator().manual_seed(0)
    for turn in range(12):
        layer = layers[turn % 3]
        index, change = flip(layer, generator)
        found = holdout.trial([(layer, index, change)])
        with torch.no_grad():
            scratch = float(toy64.loss(toy64.model(samples.inputs), samples.targets))
        assert found == pytest.approx(scratch, rel=1e-12)
        if turn % 2:
            holdout.commit()
        else:
            layer.set_block(index, ~layer.pruned[index])
    last = HoldOut(toy64.model, layers, objective, samples, batch_size=128).measure()
    index, change = flip(layers[0], generator)
    layers[0].set_block(index, ~layers[0].pruned[index])
    empty = torch.empty(0, dtype=torch.int64)
    assert holdout.trial([(layers[0], empty, change[:0])]) == pytest.approx(last, rel=1e-12)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0), (0, 1, 2)])
def test_trials_of_several_layers_agree_with_scratch(toy64, order):
    layers = find_layers(toy64.model, PrunerConfig(density=0.5))
    samples = Samples(*toy64.samples)
    holdout = HoldOut(toy64.model, layers, Objective(toy64.loss), samples, batch_size=128)
    holdout.measure()
    generator = torch.Generator().manual_seed(0)
    for turn in range(8):
        changes = [(layers[i], *flip(layers[i], generator)) for i in order]
        found = holdout.trial(changes)
        assert holdout.remember
        with torch.no_grad():
            scratch = float(toy64.loss(toy64.model(samples.inputs), samples.targets))
        assert found == pytest.approx(scratch, rel=1e-12)
        if turn % 2:
            holdout.commit()
        else:
            for layer, index, _ in changes:
                layer.set_block(index, ~layer.pruned[index])


def test_a_trial_of_two_changes_of_one_layer_counts_both(toy64):
    """As of gates that join two blocks of one layer."""
    layers = find_layers(toy64.model, PrunerConfig(density=0.5))
    samples = Samples(*toy64.samples)
    holdout = HoldOut(toy64.model, layers, Objective(toy64.loss), samples, batch_size=128)
    holdout.measure()
    index, change = flip(layers[1], torch.Generator().manual_seed(0))
    found = holdout.trial([(layers[1], index[:4], change[:4]), (layers[1], index[4:], change[4:])])
    with torch.no_grad():
        scratch = float(toy64.loss(toy64.model(samples.inputs), samples.targets))
    assert found == pytest.approx(scratch, rel=1e-12)
    holdout.commit()
    again, change = flip(layers[2], torch.Generator().manual_seed(1))
    with torch.no_grad():
        scratch = float(toy64.loss(toy64.model(samples.inputs), samples.targets))
    assert holdout.trial([(layers[2], again, change)]) == pytest.approx(scratch, rel=1e-12)


def test_modules_are_left_as_they_were(toy):
    layers = find_layers(toy.model, PrunerConfig())
    HoldOut(toy.model, layers, Objective(toy.loss), Samples(*toy.samples), 100).measure()
    assert not any("forward" in vars(layer.module) for layer in layers)


def test_earlier_layers_are_not_computed_again(toy, monkeypatch):
    layers = find_layers(toy.model, PrunerConfig(density=0.5))
    holdout = HoldOut(toy.model, layers, Objective(toy.loss), Samples(*toy.samples), 600)
    holdout.measure()
    calls = []
    plain = nn.Linear.forward
    monkeypatch.setattr(
        nn.Linear, "forward", lambda self, x: (calls.append(self), plain(self, x))[1]
    )
    index, change = flip(layers[1], torch.Generator().manual_seed(0))
    holdout.trial([(layers[1], index, change)])
    assert calls == [layers[2].module]


def test_a_layer_that_runs_twice_is_computed_in_full():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.inner(self.inner(x).tanh()))

    model = Twice().double()
    samples = Samples(torch.randn(40, 6, dtype=torch.float64), torch.randint(3, (40,)))
    layers = find_layers(model, PrunerConfig(density=0.5))
    objective = Objective(nn.CrossEntropyLoss())
    holdout = HoldOut(model, layers, objective, samples, batch_size=40)
    holdout.measure()
    index, change = flip(layers[0], torch.Generator().manual_seed(1))
    found = holdout.trial([(layers[0], index, change)])
    with torch.no_grad():
        scratch = objective.mean(model(samples.inputs), samples.targets)
    assert found == pytest.approx(float(scratch), rel=1e-12)
