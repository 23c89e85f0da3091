"""Blocks of several layers move the budget to where the loss needs it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from icbs import ConfigError, Pruner
from icbs.layerwise import prune_layerwise
from icbs.selection.shared_budget import floor
from tests.icbs.conftest import make_toy

SETTINGS = {"density": 0.3, "block_size": 32, "passes": 12, "seed": 1, "allocation": "loss"}


class WithIdleBranch(nn.Module):
    """A classifier with a layer that does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.idle = nn.Linear(12, 20), nn.Linear(20, 4), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu()) + 1e-6 * self.idle(x)


def trained(toy):
    torch.manual_seed(0)
    model = WithIdleBranch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs, targets = toy.samples
    for _ in range(150):
        optimizer.zero_grad()
        toy.loss(model(inputs), targets).backward()
        optimizer.step()
    return model


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def test_the_density_of_an_irrelevant_layer_falls_to_the_floor(toy):
    model = trained(toy)
    settings = SETTINGS | {"passes": 60, "block_size": 24, "curvature": "exact"}
    pruner, fixed = Pruner(**settings), Pruner(**settings | {"allocation": "uniform"})
    # Equal densities to begin with.
    masks = prune_layerwise(trained(toy), None, "magnitude", density=0.3).masks
    result = pruner.prune(model, toy.batches, toy.loss, masks=masks)
    kept = counts(result.masks)
    assert kept["idle"] == int(0.1 * round(0.3 * 48))
    assert sum(kept.values()) == sum(round(0.3 * size) for size in (240, 80, 48))
    other = fixed.prune(trained(toy), toy.batches, toy.loss, masks=masks)
    assert result.loss < other.loss


def test_the_total_is_exact_after_each_pass_and_the_bounds_hold(toy):
    pruner = Pruner(**SETTINGS | {"block_size": 100, "acceptance": "off", "curvature_weight": 1e-3})
    seen = []

    def check(progress):
        layers = [m for m in toy.model.modules() if isinstance(m, nn.Linear)]
        seen.append([int((layer.weight != 0).sum()) for layer in layers])

    pruner.prune(toy.model, toy.batches, toy.loss, callback=check)
    total = sum(round(0.3 * size) for size in (240, 320, 64))
    assert all(sum(each) == total for each in seen)
    assert len({tuple(each) for each in seen}) > 1
    for each in seen:
        for kept, size in zip(each, (240, 320, 64), strict=True):
            assert int(0.1 * round(0.3 * size)) <= kept < size


def test_a_resumed_run_is_bit_identical(toy, tmp_path):
    whole = Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss)
    part, again = make_toy(), make_toy()
    settings = SETTINGS | {"checkpoint_every": 3}
    Pruner(**settings).prune(
        part.model, part.batches, part.loss, run=tmp_path / "run", callback=lambda p: p.step == 5
    )
    result = Pruner.resume(tmp_path / "run", again.model, again.batches, again.loss)
    for name, mask in whole.masks.items():
        assert torch.equal(mask, result.masks[name])
    assert result.loss == whole.loss


def test_a_layer_with_a_density_of_its_own_keeps_it(toy):
    settings = SETTINGS | {"densities": {"2": 0.5}}
    result = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    kept = counts(result.masks)
    assert kept["2"] == 160
    assert kept["0"] + kept["4"] == round(0.3 * 240) + round(0.3 * 64)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"block_size": "all"}, "allocation='global'"),
        ({"constraint": "output"}, "leave one of them out"),
        ({"constraint": "2:4"}, "leave allocation='loss' out"),
    ],
)
def test_what_has_no_shared_budget_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Pruner(**{"allocation": "loss"} | setting)


def test_the_floor_is_a_tenth_of_the_uniform_share(toy):
    from icbs.model.layer import Layer

    layer = Layer.of("0", toy.model[0], 0.9)
    assert floor(layer, Pruner(**SETTINGS).config) == int(0.1 * round(0.3 * 240))
