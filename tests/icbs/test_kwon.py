"""The three stages of Kwon et al., and the particle filter, against enumeration."""

from __future__ import annotations

import copy
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.errors import LayerError
from icbs.groups.kwon import objective, prune_in_stages, rearrange, search, tune_pruned
from icbs.groups.particle_filter import particle_filter
from problems import CardinalityQUBO
from solvers import solve
from tests.icbs.group_models import LOSS, grouping_of, perceptron

SETTINGS = {"groups": "neurons", "budget": {"macs": 0.5}, "seed": 0}


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_rearrangement_lies_between_the_diagonal_and_the_optimum(seed, n, rows):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(rows, n)) + rng.normal(size=(rows, 1))
    pruned = int(rng.integers(1, n))
    state = np.zeros(n, dtype=np.uint8)
    state[np.argsort(np.square(factor).sum(axis=0))[:pruned]] = 1

    def value(x: np.ndarray) -> float:
        return float(np.square(factor @ x).sum())

    greedy = rearrange(factor, state)
    assert greedy.sum() == pruned
    best = min(
        value(np.isin(np.arange(n), chosen).astype(float))
        for chosen in combinations(range(n), pruned)
    )
    assert best <= value(greedy) + 1e-9
    assert value(greedy) <= value(state) + 1e-9
    exact = solve(CardinalityQUBO.from_factors(factor, np.zeros(n), pruned), "exhaustive")
    assert exact.energy == pytest.approx(best, abs=1e-9)


def test_stages_are_measured_and_the_solver_is_at_least_as_good_as_the_greedy_pass():
    model, batches = perceptron()
    found = {
        name: prune_in_stages(copy.deepcopy(model), batches, LOSS, rearrangement=name, **SETTINGS)
        for name in ("greedy", "exhaustive")
    }
    for name in found["greedy"].objectives["search"]:
        diagonal = found["greedy"].objectives["search"][name]
        greedy = found["greedy"].objectives["greedy"][name]
        exact = found["exhaustive"].objectives["solver"][name]
        assert diagonal >= greedy - 1e-12
        assert greedy >= exact - 1e-12
    for result in found.values():
        assert list(result.losses) == ["dense", "search", "rearranged", "tuned"]
        assert result.share <= 0.5
        assert all(np.isfinite(list(result.losses.values())))


def test_tuning_lowers_the_error_of_each_output():
    """Scales minimise the damped error of a linear reader: no other scales do better."""
    model, batches = perceptron()
    dense = copy.deepcopy(model)
    result = prune_in_stages(
        model, batches, LOSS, curvature_samples=10_000, **SETTINGS | {"include": "2 neurons"}
    )
    (scales,) = result.scales.values()
    assert ((scales == 0) == (result.state == 1)).all()
    kept = scales != 0
    assert torch.allclose(model[4].weight[:, kept], dense[4].weight[:, kept] * scales[kept])


@pytest.mark.parametrize("held", [0, 1 << 30])
def test_the_third_stage_alone_gives_the_same_weights(held, monkeypatch):
    monkeypatch.setattr("icbs.groups.tuning.HELD", held)
    model, batches = perceptron()
    dense, stages = copy.deepcopy(model), []
    sized = SETTINGS | {"batch_size": 70}
    found = prune_in_stages(model, batches, LOSS, after=stages.append, **sized)
    assert stages == ["search", "rearranged"]
    again = tune_pruned(dense, found.kept, batches, LOSS, **sized)
    assert again.losses["pruned"] == pytest.approx(found.losses["rearranged"])
    assert again.losses["tuned"] == pytest.approx(found.losses["tuned"])
    for name, value in model.state_dict().items():
        assert torch.allclose(dense.state_dict()[name], value, atol=1e-6)


def test_the_third_stage_asks_for_all_dimensions():
    model, batches = perceptron()
    with pytest.raises(LayerError, match="kept has no '0 neurons'"):
        tune_pruned(model, {}, batches, LOSS, **SETTINGS)


def test_the_search_takes_the_best_number_of_groups_of_the_first_kind():
    """Two kinds: all pairs of counts within the budget, by enumeration."""
    from icbs.groups.budget import Budget
    from icbs.groups.costs import Costs

    model, batches = perceptron()
    grouping = grouping_of(model, batches, "neurons")
    first, second = grouping.sets
    object.__setattr__(first, "kind", "heads")

    class Linear(Costs):
        def total(self, state):
            return float(100 - (state[:10].sum() * 6 + state[10:].sum() * 2.5))

        def slopes(self, state):
            return np.r_[np.full(10, 6.0), np.full(8, 2.5)]

    importance = np.random.default_rng(0).exponential(size=18)
    budget = Budget(grouping, Linear(), "macs", 0.6)
    state = search(budget, importance)
    assert budget.holds(state)
    ranked = np.sort(importance[:10])[::-1], np.sort(importance[10:])[::-1]
    best = max(
        ranked[0][:h].sum() + ranked[1][:n].sum()
        for h, n in product(range(1, 11), range(1, 9))
        if 100 - 6 * (10 - h) - 2.5 * (8 - n) <= 60
    )
    assert importance[state == 0].sum() == pytest.approx(best)
    assert set(objective(grouping, np.eye(18), state)) == {first.name, second.name}


def test_the_particle_filter_finds_the_best_mask_of_a_small_problem():
    model, batches = perceptron()
    grouping = grouping_of(model, batches, "neurons", include="2 neurons")
    ((x, y),) = batches

    @torch.no_grad()
    def loss(state: np.ndarray) -> float:
        grouping.close(state)
        return float(LOSS(model(x), y))

    states = [np.isin(np.arange(8), c).astype(np.uint8) for c in combinations(range(8), 4)]
    best = min(map(loss, states))
    found = particle_filter(loss, 8, 4, particles=20, rounds=20, temperature=0.1, seed=0)
    assert found.loss == pytest.approx(best)
    assert found.state.sum() == 4
    assert found.evaluations <= 70  # each different mask once
    assert found.losses == sorted(found.losses, reverse=True)
    few = particle_filter(loss, 8, 4, particles=4, rounds=2, seed=0)
    assert few.evaluations <= 8
    with pytest.raises(ValueError, match="between 0 and size"):
        particle_filter(loss, 8, 9)
