"""One problem of all weights of a model: its cardinalities, its proof, and the true optimum."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from torch import nn

from icbs import Pruner, make_blocks
from solvers import UnsupportedError, solve

LOSS = nn.CrossEntropyLoss()


def tiny() -> tuple[nn.Module, list]:
    """A perceptron of 18 weights, trained, and its samples."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    y = ((x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long()).clamp(max=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval(), [(x, y)]


SETTINGS = {"density": 0.5, "block_size": "all", "curvature": "exact", "seed": 0}


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_problem_of_the_whole_model_is_the_quadratic_model_of_its_loss(allocation):
    model, batches = tiny()
    (block,) = make_blocks(model, batches, LOSS, allocation=allocation, **SETTINGS)
    problem = block.problem
    assert problem.n == 18
    assert problem.num_groups == (2 if allocation == "uniform" else 1)
    ones = int(np.sum(problem.k))
    kept = 2 * round(0.5 * 9) if allocation == "uniform" else round(0.5 * 18)
    assert ones == 18 - kept
    answer = solve(problem, "exact")
    best = min(
        problem.energy(state(18, chosen))
        for chosen in combinations(range(18), ones)
        if problem.num_groups == 1 or sum(i < 9 for i in chosen) == ones // 2
    )
    assert answer.energy == pytest.approx(best)
    assert answer.gap < 1e-6


def state(n: int, ones: tuple[int, ...]) -> np.ndarray:
    x = np.zeros(n, np.uint8)
    x[list(ones)] = 1
    return x


def test_a_small_model_is_pruned_by_one_problem_and_comes_near_the_true_optimum():
    model, batches = tiny()
    dense = [layer.weight.detach().clone() for layer in (model[0], model[2])]
    result = Pruner(solver="exact", allocation="global", passes=12, **SETTINGS).prune(
        model, batches, LOSS, progress=False
    )
    assert {row.n for row in result.history} == {18}
    assert {row.layer for row in result.history} == {"0 + 2"}  # in the order of the model
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert kept == 9  # half of all weights
    x, y = batches[0]
    flat = torch.cat([w.flatten() for w in dense])
    losses = []
    with torch.no_grad():
        found = float(LOSS(model(x), y))
        for chosen in combinations(range(18), kept):
            weights = torch.zeros_like(flat)
            weights[list(chosen)] = flat[list(chosen)]
            h = torch.tanh(x[:200] @ weights[:9].view(3, 3).T + model[0].bias)
            out = h @ weights[9:].view(3, 3).T + model[2].bias
            losses.append(float(LOSS(out, y[:200])))
    assert len(losses) == comb(18, kept)
    start = result.initial_loss
    best = min(losses)
    assert found < start
    # Most of the way from the start to the best of all masks (on other samples).
    assert found - best < 0.35 * (start - best)


def test_solvers_that_can_not_hold_the_problem_are_refused_before_work():
    model = nn.Sequential(nn.Linear(30, 40))
    batches = [(torch.randn(40, 30), torch.zeros(40).long())]
    before = model[0].weight.clone()
    with pytest.raises(UnsupportedError, match=r"one problem of 1,200 weights.*at most 32"):
        Pruner(solver="exhaustive", **SETTINGS).prune(model, batches, LOSS)
    assert torch.equal(model[0].weight, before)
