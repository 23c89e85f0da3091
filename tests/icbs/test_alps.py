"""ALPS compared with exhaustive search, with Wanda and SparseGPT, and on whole models."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.config.constraints import Pattern
from icbs.layerwise import alps, prune_layerwise, sparsegpt
from icbs.layerwise.conjugate_gradients import solve_exactly
from tests.icbs.conftest import make_toy
from tests.icbs.test_sparsegpt import error, problem


def damped(gram: torch.Tensor, damping: float = 0.01) -> torch.Tensor:
    return gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def best_weights(
    dense: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Optimal weights on a support, and their error with damping."""
    H = damped(gram)
    found = solve_exactly(H[None], (dense @ H)[None], mask[None], dense[None])[0]
    return found, error(found, dense, H)


def wanda(dense: torch.Tensor, gram: torch.Tensor, keep: int) -> torch.Tensor:
    scores = dense.abs() * gram.diagonal().sqrt()
    mask = torch.zeros(dense.numel(), dtype=torch.bool)
    mask[scores.flatten().topk(keep).indices] = True
    return mask.view(dense.shape)


@settings(max_examples=30)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(2, 12),
    share=st.floats(0.1, 0.9),
    seed=st.integers(0, 10**6),
)
def test_weights_are_optimal_on_the_support_that_is_kept(rows, columns, share, seed):
    dense, gram = problem(rows, columns, seed)
    keep = max(1, round(share * dense.numel()))
    weight, mask = alps(dense, gram, keep)
    assert int(mask.sum()) == keep
    assert not weight[~mask].any()
    _, best = best_weights(dense, gram, mask)
    # Ten iterations of conjugate gradients, relative to the size of the outputs.
    slack = 1e-6 * error(torch.zeros_like(dense), dense, damped(gram))
    assert error(weight, dense, damped(gram)) <= 1.05 * best + slack
    _, initial = best_weights(dense, gram, wanda(dense, damped(gram), keep))
    assert best <= 1.05 * initial + slack


@pytest.mark.parametrize("seed", range(6))
def test_the_mask_is_close_to_the_best_of_all(seed):
    dense, gram = problem(1, 10, seed)
    errors = {}
    for kept in combinations(range(10), 5):
        mask = torch.zeros(1, 10, dtype=torch.bool)
        mask[0, list(kept)] = True
        errors[kept] = best_weights(dense, gram, mask)[1]
    _, mask = alps(dense, gram, 5)
    found = errors[tuple(mask[0].nonzero().flatten().tolist())]
    ranked = sorted(errors.values())
    assert found <= ranked[25], "not among the best tenth of the 252 masks"


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
def test_its_support_is_better_than_those_of_wanda_and_sparsegpt(share):
    for seed in range(3):
        dense, gram = problem(24, 48, seed)
        keep = round(share * dense.numel())
        mine = best_weights(dense, gram, alps(dense, gram, keep)[1])[1]
        theirs = best_weights(dense, gram, sparsegpt(dense, gram, keep)[1])[1]
        assert mine < theirs
        assert mine < 0.8 * best_weights(dense, gram, wanda(dense, gram, keep))[1]


def test_with_independent_inputs_it_keeps_the_largest_outputs():
    dense, _ = problem(6, 10, 0)
    gram = torch.diag(torch.linspace(0.5, 3, 10, dtype=torch.float64))
    weight, mask = alps(dense, gram, 20)
    assert torch.equal(mask, wanda(dense, damped(gram), 20))
    torch.testing.assert_close(weight, dense * mask)


def test_patterns_hold_and_inputs_that_are_always_zero_do_no_harm():
    dense, gram = problem(8, 16, 1)
    gram[3] = 0
    gram[:, 3] = 0
    weight, mask = alps(dense, gram, 0, Pattern(2, 4))
    assert (mask.view(-1, 4).sum(dim=1) == 2).all()
    assert torch.isfinite(weight).all()
    weight, _ = alps(dense, torch.zeros_like(gram), 64)
    assert torch.isfinite(weight).all()


def test_half_precision_weights_keep_their_type():
    dense, gram = problem(4, 8, 2, torch.float32)
    weight, mask = alps(dense.bfloat16(), gram, 16)
    assert weight.dtype == torch.bfloat16
    assert int(mask.sum()) == 16


@pytest.mark.parametrize("update", [True, False])
def test_whole_models_are_pruned_layer_by_layer(update):
    toy = make_toy()
    dense = copy.deepcopy(toy.model)
    result = prune_layerwise(toy.model, toy.batches, "alps", density=0.4, update=update)
    assert result.density == pytest.approx(0.4, abs=1e-3)
    for name, mask in result.masks.items():
        weight, old = (m.get_submodule(name).weight.detach() for m in (toy.model, dense))
        assert not weight[~mask].any()
        assert torch.equal(weight, old * mask) != update
