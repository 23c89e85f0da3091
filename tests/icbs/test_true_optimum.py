"""The true optimum over all masks, held against one plain forward pass per mask."""

from __future__ import annotations

import copy
from itertools import combinations, product
from math import ceil, comb, log10, prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from icbs import (
    ConfigError,
    LayerError,
    Pruner,
    TrueOptimum,
    apply_masks,
    make_blocks,
    true_optimum,
)
from icbs.config import LayerSettings
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.enumeration.mask_losses import MaskLosses
from icbs.enumeration.mask_set import MaskSet
from icbs.model.finding import find_layers
from solvers import solve

LOSS = nn.CrossEntropyLoss()


def small(seed: int = 0, samples: int = 60) -> tuple[nn.Sequential, list]:
    """A perceptron of 4 + 6 weights and random samples."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 2, generator=generator, dtype=torch.float64)
    y = ((x[:, 0] > 0).long() + (x[:, 1] > 0.4).long()).clamp(max=2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 3)).double()
    return model, [(x[:25], y[:25]), (x[25:], y[25:])]


def plain_loss(model: nn.Module, batches: list, masks: dict, loss=LOSS) -> float:
    """Loss of a copy whose weights are zeroed."""
    model = copy.deepcopy(model)
    apply_masks(model, masks)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        return float(loss(model(x), y))


def by_hand(model: nn.Module, batches: list, kept: list[int]) -> dict[tuple, float]:
    """Losses of all masks that keep so many weights of each of the two layers."""
    sizes = [model[0].weight.shape, model[2].weight.shape]
    found = {}
    choices = [combinations(range(s.numel()), k) for s, k in zip(sizes, kept, strict=True)]
    for both in product(*choices):
        masks = {}
        for name, shape, chosen in zip(("0", "2"), sizes, both, strict=True):
            mask = torch.zeros(shape.numel(), dtype=torch.bool)
            mask[list(chosen)] = True
            masks[name] = mask.view(shape)
        found[both] = plain_loss(model, batches, masks)
    return found


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_every_mask_of_given_counts_comes_once_in_order(groups, random):
    groups = [(size, min(size, kept)) for size, kept in groups]
    labels = [g for g, (size, _) in enumerate(groups) for _ in range(size)]
    random.shuffle(labels)
    found = MaskSet(np.array(labels), np.array([kept for _, kept in groups]))
    count = prod(comb(size, kept) for size, kept in groups)
    assert found.count == count
    assert 10**found.log10_count == pytest.approx(count)
    masks = found.masks(0, count)
    assert len(np.unique(masks, axis=0)) == count
    for g, (_, kept) in enumerate(groups):
        assert (masks[:, np.array(labels) == g].sum(axis=1) == kept).all()
    cut = random.randint(0, count)
    assert np.array_equal(np.concatenate([found.masks(0, cut), found.masks(cut, count)]), masks)


def test_masks_of_one_group_come_in_the_order_of_itertools():
    masks = MaskSet(np.zeros(7, np.int64), np.array([3])).masks(0, comb(7, 3))
    assert [tuple(np.flatnonzero(mask)) for mask in masks] == list(combinations(range(7), 3))


def test_large_sets_are_counted_and_their_last_masks_made_at_once():
    large = MaskSet(np.zeros(9000, np.int64), np.array([900]))
    assert large.log10_count == pytest.approx(log10(comb(9000, 900)))
    assert large.count_in_words == f"about 10^{log10(comb(9000, 900)):,.0f}"
    huge = MaskSet(np.zeros(10**7, np.int64), np.array([10**6]))
    assert huge.count_in_words.startswith("about 10^1,411,")
    wide = MaskSet(np.zeros(200, np.int64), np.array([199]))
    assert wide.count == 200
    assert np.array_equal(np.flatnonzero(~wide.masks(0, 1)[0]), [199])
    assert np.array_equal(np.flatnonzero(~wide.masks(199, 200)[0]), [0])


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_optimum_is_that_of_all_masks_one_by_one(allocation):
    model, batches = small()
    before = copy.deepcopy(model.state_dict())
    found = true_optimum(model, batches, LOSS, density=0.5, allocation=allocation)
    counts = [[2, 3]] if allocation == "uniform" else [[k, 5 - k] for k in range(5)]
    losses = {}
    for kept in counts:
        losses |= by_hand(model, batches, kept)
    assert found.mask_set.count == len(losses) == (120 if allocation == "uniform" else comb(10, 5))
    assert found.loss == pytest.approx(min(losses.values()), abs=1e-12)
    assert np.allclose(sorted(found.losses), sorted(losses.values()), atol=1e-12)
    assert plain_loss(model, batches, found.masks) == pytest.approx(found.loss, abs=1e-12)
    assert sum(int(mask.sum()) for mask in found.masks.values()) == 5
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    ranked = sorted(losses.values())
    for at in (0, 1, 7, len(ranked) - 1):
        assert found.rank(ranked[at]) == 1 + sum(loss < ranked[at] - 1e-13 for loss in ranked)
    assert found.share(2.0, found.loss) == 1
    assert found.share(found.loss + 0.5, found.loss + 0.25) == pytest.approx(0.5)
    assert np.isnan(found.share(found.loss, found.loss))


def test_other_masks_are_measured_on_the_same_samples():
    model, batches = small()
    found = true_optimum(model.train(), batches, LOSS, density=0.5)
    result = Pruner(density=0.2, block_size="all", passes=3, solver="exhaustive").prune(
        copy.deepcopy(model), batches, LOSS, progress=False
    )
    expected = plain_loss(model, batches, result.masks)
    assert found.loss_of(result.masks) == pytest.approx(expected, abs=1e-12)
    assert model.training


@pytest.mark.parametrize("settings", [{"constraint": "1:2"}, {"constraint": "output"}, {}])
def test_counts_follow_the_constraint_or_given_masks(settings):
    model, batches = small()
    given = {"0": torch.tensor([[True, False], [False, True]]), "2": torch.eye(3, 2).bool()}
    layers = find_layers(model, LayerSettings(density=0.5))
    masks = None if settings.get("constraint") == "1:2" else given
    found = MaskSet.of(layers, LayerSettings(**{"density": 0.5} | settings), masks)
    rows = {"1:2": 2**5, "output": 2 * 2 * 2 * 2 * 1}
    assert found.count == rows.get(settings.get("constraint"), comb(4, 2) * comb(6, 2))
    optimum = true_optimum(model, batches, LOSS, masks=masks, density=0.5, **settings)
    assert optimum.mask_set.count == len(optimum.losses) == found.count
    if masks:
        assert optimum.rank(optimum.loss_of(given)) >= 1
        assert np.isclose(optimum.losses, optimum.loss_of(given), atol=1e-12).any()


def test_what_can_not_be_enumerated_is_refused_by_name():
    model, batches = small()
    with pytest.raises(ConfigError, match=r"10 weights have 120 masks.*at most 100 are"):
        true_optimum(model, batches, LOSS, density=0.5, max_masks=100)
    wide = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    with pytest.raises(ConfigError, match=r"406,528 weights have about 10\^57,\d\d\d masks"):
        true_optimum(wide, batches, LOSS, density=0.1)
    with pytest.raises(ConfigError, match=r"constraint='output' does not say how many"):
        true_optimum(model, batches, LOSS, density=0.5, constraint="output")
    with pytest.raises(LayerError, match=r"a mask of shape \(3, 2\) for '2'"):
        true_optimum(model, batches, LOSS, masks={"0": torch.ones(2, 2).bool()}, density=0.5)
    with pytest.raises(ValueError, match="can't keep"):
        MaskSet(np.zeros(3, np.int64), np.array([4]))


class OneByOne(nn.Module):
    """A model whose control flow depends on its values, which vmap refuses."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.inner(x)
        return outputs if float(outputs.sum()) > -1e9 else -outputs


def test_models_that_can_not_be_vectorised_are_evaluated_mask_by_mask():
    model, batches = small()
    together = true_optimum(model, batches, LOSS, density=0.25)
    apart = true_optimum(OneByOne(model), batches, LOSS, density=0.25)
    assert together.mask_losses.together
    assert not apart.mask_losses.together
    assert np.allclose(together.losses, apart.losses, atol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        LOSS,
        F.cross_entropy,
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda outputs, targets: F.mse_loss(outputs, F.one_hot(targets, 3).to(outputs)),
    ],
    ids=["module", "function", "sum", "smoothing", "squares"],
)
def test_losses_of_many_masks_are_those_of_each(loss):
    model, batches = small()
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    layers = find_layers(model, LayerSettings(density=0.5))
    objective = Objective.check(loss, model, Samples(x[:4], y[:4]), y)
    evaluate = MaskLosses(model, layers, objective, Samples(x, y))
    keep = torch.rand(9, 10, generator=torch.Generator().manual_seed(1)) < 0.5
    found = evaluate(keep)
    for own, value in zip(keep, found, strict=True):
        masks = {"0": own[:4].view(2, 2), "2": own[4:].view(3, 2)}
        expected = plain_loss(model, batches, masks, loss)
        if getattr(loss, "reduction", "mean") == "sum":
            expected /= len(y)
        assert float(value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pieces", [1, 7])
def test_samples_may_come_in_pieces_and_masks_too(monkeypatch, pieces):
    model, batches = small()
    whole = true_optimum(model, batches, LOSS, density=0.5)
    monkeypatch.setattr("icbs.enumeration.mask_losses.MAX_SAMPLES_AT_ONCE", 60 // pieces)
    monkeypatch.setattr("icbs.enumeration.mask_losses.SAMPLES_AT_ONCE", 500)
    calls: list[tuple[int, int]] = []
    parts = true_optimum(
        model, batches, LOSS, density=0.5, callback=lambda *counts: calls.append(counts)
    )
    assert np.allclose(whole.losses, parts.losses, atol=1e-12)
    assert calls[-1] == (120, 120)
    assert len(calls) == ceil(120 / (500 // (60 // pieces)))


def test_a_convolution_is_enumerated_too():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 1, 3, 3, generator=generator, dtype=torch.float64)
    batches = [(x, (x.sum(dim=(1, 2, 3)) > 0).long())]
    found = true_optimum(model, batches, LOSS, density=0.5, include="Conv2d")
    assert found.masks["0"].shape == (2, 1, 2, 2)
    assert plain_loss(model, batches, found.masks) == pytest.approx(found.loss, abs=1e-12)
    assert len(found.losses) == comb(8, 4)


@pytest.mark.filterwarnings("ignore::icbs.DensityWarning")
@pytest.mark.parametrize("seed", range(3))
def test_masks_of_a_state_are_those_that_the_move_makes(seed):
    model, batches = small(seed)
    (block,) = make_blocks(model, batches, LOSS, density=0.5, block_size="all", allocation="global")
    answer = solve(block.problem, "exhaustive")
    before = block.gates.closed()
    masks = block.masks(answer.x)
    assert np.array_equal(block.gates.closed(), before)
    flat = torch.cat([masks[name].flatten() for name in ("0", "2")]).numpy()
    assert np.array_equal(flat, answer.x == 0)
    start = block.masks(block.start)
    assert {n: m.tolist() for n, m in start.items()} == {
        layer.name: layer.mask.tolist() for layer in block.gates.layers
    }
    found = true_optimum(model, batches, LOSS, masks=start, density=0.5, allocation="global")
    assert isinstance(found, TrueOptimum)
    assert found.loss <= min(found.loss_of(masks), found.loss_of(start)) + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_where_the_loss_is_quadratic_the_models_optimum_is_the_true_one(seed):
    """One linear layer and squared errors: the Hessian is constant, and the model exact."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(4, 3, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 3)).double()
    # All samples twice, so that those of the pass and those held out are the same in mean.
    batches = [(torch.cat([x, x]), torch.cat([y, y]))]
    (block,) = make_blocks(
        model, batches, nn.MSELoss(), density=0.5, block_size="all", curvature="exact",
        gradient_samples=1000, acceptance_samples=1,
    )  # fmt: skip
    answer = solve(block.problem, "exact")
    optimum = true_optimum(model, batches, nn.MSELoss(), density=0.5)
    found = optimum.loss_of(block.masks(answer.x))
    start = optimum.loss_of(block.masks(block.start))
    # The model sees 999 of the 1000 samples.
    assert optimum.share(start, found) > 0.99
    assert answer.energy == pytest.approx(found - start, abs=0.02 * (start - found))
