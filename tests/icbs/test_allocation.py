"""A global budget is exact, follows the scores, and empties no layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from icbs import ConfigError, LayerError, Pruner, PrunerConfig
from icbs.selection.allocation import threshold

QUICK = {"density": 0.3, "block_size": 32, "passes": 3, "allocation": "global"}


@given(data=st.data())
def test_the_sum_is_exact_and_the_bounds_hold(data):
    sizes = data.draw(st.lists(st.integers(2, 30), min_size=1, max_size=5))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    # Few distinct values, so that ties are common.
    values = [rng.integers(0, 6, size).astype(np.float32) for size in sizes]
    low = np.array([data.draw(st.integers(0, size - 1)) for size in sizes])
    high = np.array(
        [data.draw(st.integers(least, size)) for least, size in zip(low, sizes, strict=True)]
    )
    keep = data.draw(st.integers(int(low.sum()), int(high.sum())))
    counts = threshold(values, keep, low, high)
    assert counts.sum() == keep
    assert (counts >= low).all()
    assert (counts <= high).all()


@given(seed=st.integers(0, 1000), keep=st.integers(0, 60))
def test_without_bounds_the_largest_of_all_are_kept(seed, keep):
    rng = np.random.default_rng(seed)
    values = [rng.random(size).astype(np.float32) for size in (10, 20, 30)]
    counts = threshold(values, keep, np.zeros(3, int), np.array([10, 20, 30]))
    best = np.sort(np.concatenate(values))[60 - keep :]
    assert list(counts) == [int(np.isin(v, best).sum()) for v in values]


def test_layers_keep_what_one_threshold_gives_them(toy):
    with torch.no_grad():
        toy.model[2].weight.mul_(10)
        toy.model[4].weight.mul_(0.001)
    dense = {name: toy.model.get_submodule(name).weight.detach().clone() for name in "024"}
    total = round(0.3 * sum(w.numel() for w in dense.values()))
    result = Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss)
    kept = {name: int(mask.sum()) for name, mask in result.masks.items()}
    assert sum(kept.values()) == total
    assert kept["2"] > kept["0"] > kept["4"] == int(0.1 * round(0.3 * 64))
    assert result.density == pytest.approx(0.3, abs=0.002)


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("allocation", ["global", "loss"])
def test_many_small_layers_hit_the_density_of_the_model(density, allocation):
    """Seven matrices of 25 weights, each of which would round its own share."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(7) for layer in (nn.Linear(5, 5), nn.Tanh())))
    x = torch.randn(100, 5, generator=generator)
    settings = {"density": density, "allocation": allocation, "passes": 2, "weights": "global"}
    settings |= {"weights": "fixed"} if allocation == "global" else {}
    result = Pruner(**settings).prune(model, [(x, x[:, 0:1].expand(-1, 5))], nn.MSELoss())
    assert sum(int(mask.sum()) for mask in result.masks.values()) == round(density * 175)


def test_a_density_of_its_own_is_not_shared(toy):
    settings = QUICK | {"densities": {"2": 0.5}}
    result = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    assert int(result.masks["2"].sum()) == 160
    others = int(result.masks["0"].sum()) + int(result.masks["4"].sum())
    assert others == round(0.3 * (toy.model[0].weight.numel() + toy.model[4].weight.numel()))


def test_given_masks_bring_their_allocation(toy):
    first = Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss)
    from tests.icbs.conftest import make_toy

    fresh = make_toy()
    again = Pruner(**QUICK).prune(fresh.model, fresh.batches, fresh.loss, masks=first.masks)
    for name, mask in first.masks.items():
        assert again.masks[name].sum() == mask.sum()
    masks = {name: mask.clone() for name, mask in first.masks.items()}
    masks["0"].fill_(True)
    fresh = make_toy()
    with pytest.raises(LayerError, match="masks keep .* in all.*set density"):
        Pruner(**QUICK).prune(fresh.model, fresh.batches, fresh.loss, masks=masks)


def test_a_pattern_leaves_nothing_to_share():
    with pytest.raises(ConfigError, match="leave allocation='global' out"):
        PrunerConfig.of(constraint="2:4", allocation="global")
