"""CBS: randomised magnitude, local search and update, against brute force."""

from __future__ import annotations

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs import ConfigError, MemoryLimitError
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.recovery.gradient_rows import GradientRows
from icbs.surgeon import LocalSearch, prune_cbs, random_magnitude
from icbs.surgeon.pruning import SurgeonSettings
from icbs.surgeon.stored_gradients import StoredGradients
from tests.icbs.conftest import make_toy
from tests.icbs.test_closed_form import dense_rows, setup


class Dense:
    """G as an array."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self.count = matrix, len(matrix)

    def times(self, vector: np.ndarray) -> np.ndarray:
        return self.matrix @ vector

    def transposed(self, vector: np.ndarray) -> np.ndarray:
        return self.matrix.T @ vector

    def columns(self, index: np.ndarray) -> np.ndarray:
        return self.matrix[:, index]

    def squares(self) -> np.ndarray:
        return (self.matrix**2).sum(axis=0)


def objective(matrix: np.ndarray, weights: np.ndarray, pruned: np.ndarray, ridge: float) -> float:
    H = matrix.T @ matrix / len(matrix) + ridge * np.eye(len(weights))
    w = weights * pruned
    return float(w @ H @ w)


@given(
    size=st.integers(1, 400),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    plain=st.booleans(),
)
def test_random_masks_keep_exactly_the_number_asked_for(size, share, seed, plain):
    generator = torch.Generator().manual_seed(seed)
    weights, keep = torch.randn(size, generator=generator), round(share * size)
    pruned = random_magnitude(weights, keep, None if plain else generator)
    assert int((~pruned).sum()) == keep
    if plain and 0 < keep < size:
        assert weights[~pruned].abs().min() >= weights[pruned].abs().max()


def test_random_masks_keep_the_largest_weight_and_differ():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(900, generator=generator)
    masks = [random_magnitude(weights, 300, generator) for _ in range(5)]
    assert not any(mask[weights.abs().argmax()] for mask in masks)
    assert not torch.equal(masks[0], masks[1])
    largest = random_magnitude(weights, 300, None)
    shared = int((~largest & ~masks[0]).sum())
    assert 200 < shared < 300


@settings(max_examples=40, deadline=None)
@given(size=st.integers(4, 40), samples=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_sweeps_lower_the_objective_and_keep_the_number_of_weights(size, samples, seed):
    random = np.random.default_rng(seed)
    G, w = random.normal(size=(samples, size)), random.normal(size=size)
    pruned = np.zeros(size, dtype=bool)
    pruned[random.permutation(size)[: size // 2]] = True
    search = LocalSearch(w, Dense(G), 1e-2)
    value = objective(G, w, pruned, 1e-2)
    assert search.value(pruned) == pytest.approx(value)
    for _ in range(50):
        after, swaps = search.sweep(pruned)
        assert after.sum() == pruned.sum()
        lower = objective(G, w, after, 1e-2)
        if not swaps:
            assert np.array_equal(after, pruned)
            break
        assert lower < value * (1 - 0.5e-4)
        pruned, value = after, lower


@pytest.mark.parametrize("seed", range(5))
def test_the_search_ends_near_the_best_of_all_sets(seed):
    random = np.random.default_rng(seed)
    G, w = random.normal(size=(6, 10)), random.normal(size=10)
    values = []
    for chosen in combinations(range(10), 5):
        pruned = np.isin(np.arange(10), chosen)
        values.append(objective(G, w, pruned, 1e-3))
    search = LocalSearch(w, Dense(G), 1e-3)
    pruned = np.argsort(np.argsort(abs(w))) < 5
    while True:
        pruned, swaps = search.sweep(pruned)
        if not swaps:
            break
    found = objective(G, w, pruned, 1e-3)
    assert found <= sorted(values)[25], "not among the best tenth of the 252 sets"


@pytest.mark.parametrize("name", ["linear", "convolutions", "repeated", "language"])
def test_stored_gradients_are_those_of_autograd(name):
    model, layers, samples, objective_ = setup(name)
    rows = GradientRows(model, layers, objective_, samples, batch_size=4)
    found = StoredGradients(rows, 1 << 30)
    parts = dense_rows(model, layers, samples, objective_, False).split(
        [layer.size for layer in layers], dim=1
    )
    G = torch.cat(
        [
            torch.stack([x.kind.matrix(row.view(x.kind.weight.shape)).flatten() for row in part])
            for x, part in zip(layers, parts, strict=True)
        ],
        dim=1,
    ).numpy()
    random = np.random.default_rng(0)
    v, u = random.normal(size=G.shape[1]), random.normal(size=len(G))
    index = random.permutation(G.shape[1])[:50]
    np.testing.assert_allclose(found.times(v), G @ v, atol=1e-9)
    np.testing.assert_allclose(found.transposed(u), G.T @ u, atol=1e-9)
    np.testing.assert_allclose(found.columns(index), G[:, index], atol=1e-9)
    np.testing.assert_allclose(found.squares(), (G**2).sum(axis=0), atol=1e-9)


@pytest.mark.parametrize("density", [0.2, 0.4])
def test_each_stage_improves_what_it_minimises(density):
    toy = make_toy(torch.float64)
    dense = copy.deepcopy(toy.model)
    options = SurgeonSettings(draws=10, sweeps=20, ridge=1e-3)
    result = prune_cbs(toy.model, toy.batches, toy.loss, density=density, settings=options)
    names = [stage.name for stage in result.stages]
    assert names == ["magnitude", "randomised magnitude", "local search", "update"]
    magnitude, drawn, searched, updated = result.stages
    assert drawn.loss <= magnitude.loss
    assert searched.loss <= drawn.loss
    assert updated.objective < searched.objective, "the update never raises the model"
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert kept == round(density * sum(mask.numel() for mask in result.masks.values()))
    for name, mask in result.masks.items():
        weight, old = (m.get_submodule(name).weight.detach() for m in (toy.model, dense))
        assert not weight[~mask].any()
        assert torch.equal(weight[mask], old[mask]) == (not updated.kept)
    assert updated.kept == (updated.loss <= searched.loss)


def test_an_update_that_raises_the_loss_is_not_kept():
    """With few samples the gradient's part of the model is bounded by no loss."""
    toy = make_toy(torch.float64)
    dense = copy.deepcopy(toy.model)
    options = SurgeonSettings(draws=5, sweeps=5, first_order=30.0, fisher_samples=20)
    result = prune_cbs(toy.model, toy.batches, toy.loss, density=0.3, settings=options)
    searched, updated = result.stages[-2:]
    assert (updated.name, updated.kept) == ("update", False)
    assert updated.loss > searched.loss
    for name, mask in result.masks.items():
        weight, old = (m.get_submodule(name).weight.detach() for m in (toy.model, dense))
        assert torch.equal(weight, old * mask)


def test_the_update_is_that_of_the_multiplier_form():
    # (H⁻¹)_PP λ = w_P, δ = -H⁻¹_{:,P} λ
    toy = make_toy(torch.float64)
    dense = copy.deepcopy(toy.model)
    options = SurgeonSettings(draws=0, sweeps=0, ridge=1e-2, fisher_samples=50)
    result = prune_cbs(toy.model, toy.batches, toy.loss, density=0.4, settings=options)
    from icbs import PrunerConfig
    from icbs.run.context import RunContext

    config = PrunerConfig.of(density=0.4, curvature="empirical")
    context = RunContext.prepare(dense, toy.batches, toy.loss, config)
    samples = context.pool[:50]
    G = dense_rows(dense, context.layers, samples, Objective(toy.loss), False).numpy()
    w = np.concatenate([x.dense.flatten().numpy() for x in context.layers])
    pruned = np.concatenate([~result.masks[x.name].flatten().numpy() for x in context.layers])
    inverse = np.linalg.inv(G.T @ G / 50 + 1e-2 * np.eye(len(w)))
    multipliers = np.linalg.solve(inverse[np.ix_(pruned, pruned)], w[pruned])
    expected = w - inverse[:, pruned] @ multipliers
    found = np.concatenate(
        [toy.model.get_submodule(x.name).weight.detach().flatten() for x in context.layers]
    )
    np.testing.assert_allclose(found, np.where(pruned, 0, expected), atol=1e-8)


def test_bad_input_leaves_the_model_dense():
    toy = make_toy()
    before = copy.deepcopy(toy.model.state_dict())
    with pytest.raises(ConfigError, match="density"):
        prune_cbs(toy.model, toy.batches, toy.loss, density=1.5)
    gradients = GradientRows(
        *(toy.model, [], Objective(toy.loss), Samples(*toy.samples)), batch_size=100
    )
    assert len(gradients) == 600
    with pytest.raises(MemoryLimitError):
        prune_cbs(toy.model, toy.batches, toy.loss, density=0.3, max_memory=1000)
    assert all(torch.equal(t, before[n]) for n, t in toy.model.state_dict().items())
