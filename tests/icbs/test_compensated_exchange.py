"""Exchanges with compensation compared with least squares on each support."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.config.constraints import Pattern
from icbs.layerwise import exchange_compensated, exchange_weights, prune_layerwise
from tests.icbs.test_weight_exchange import problem, wanda


def damped(gram):
    return gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def least_error(dense, hessian, support):
    """Error and weights of least squares on a support, by the normal equations."""
    index = torch.tensor(sorted(support), dtype=torch.long)
    weight = torch.zeros_like(dense)
    if len(index):
        side = (dense @ hessian)[index]
        weight[index] = torch.linalg.solve(hessian[index][:, index], side)
    change = weight - dense
    return float(0.5 * change @ hessian @ change), weight


@settings(max_examples=25)
@given(columns=st.integers(4, 9), share=st.floats(0.2, 0.8), seed=st.integers(0, 10_000))
def test_no_exchange_with_optimal_weights_lowers_the_error(columns, share, seed):
    weight, gram = problem(2, columns, seed)
    keep = min(columns - 1, max(1, round(share * columns)))
    start = wanda(weight, gram, keep)
    new, mask = exchange_compensated(weight, gram, start, candidates=None)
    hessian = damped(gram)
    assert (mask.sum(dim=1) == keep).all()
    for row in range(2):
        support = set(mask[row].nonzero()[:, 0].tolist())
        error, best = least_error(weight[row], hessian, support)
        torch.testing.assert_close(new[row], best)
        first, _ = least_error(weight[row], hessian, set(start[row].nonzero()[:, 0].tolist()))
        assert error <= first * (1 + 1e-9)
        for q, p in itertools.product(support, set(range(columns)) - support):
            other, _ = least_error(weight[row], hessian, support - {q} | {p})
            assert other >= error * (1 - 1e-7)


def test_many_updates_lose_no_accuracy():
    weight, gram = problem(3, 40, 1)
    start = torch.zeros_like(weight, dtype=torch.bool)
    start[:, :20] = True  # far from the best
    new, mask = exchange_compensated(weight, gram, start, exchanges=200)
    for row in range(3):
        support = mask[row].nonzero()[:, 0].tolist()
        error, best = least_error(weight[row], damped(gram), support)
        torch.testing.assert_close(new[row], best)
        first, _ = least_error(weight[row], damped(gram), range(20))
        assert error < first
    assert (mask != start).sum() > 10


def test_it_beats_exchanges_without_compensation():
    weight, gram = problem(16, 24, 2)
    start = wanda(weight, gram, 12)
    plain = exchange_weights(weight, gram, start)
    _, mask = exchange_compensated(weight, gram, start)

    def total(found):
        return sum(
            least_error(weight[r], damped(gram), found[r].nonzero()[:, 0].tolist())[0]
            for r in range(16)
        )

    assert total(mask) < total(plain)


@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 3)])
def test_patterns_are_kept(pattern):
    weight, gram = problem(5, 24, 0)
    start = pattern.mask(weight.abs() * gram.diagonal().sqrt())
    new, mask = exchange_compensated(weight, gram, start, pattern)
    assert set(mask.view(-1, pattern.run).sum(dim=1).tolist()) == {pattern.keep}
    assert not new[~mask].any()
    assert (mask != start).any()


@pytest.mark.parametrize("kept", [False, True])
def test_an_output_without_a_choice_stays(kept):
    weight, gram = problem(2, 6, 0)
    mask = torch.full_like(weight, kept, dtype=torch.bool)
    new, found = exchange_compensated(weight, gram, mask)
    assert torch.equal(found, mask)
    torch.testing.assert_close(new, weight * kept)


def test_a_model_is_pruned_with_less_error_than_by_sparsegpt(toy):
    from tests.icbs.conftest import make_toy

    inputs, _ = toy.samples
    dense = make_toy().model
    errors = {}
    for method in ("sparsegpt", "compensated-exchange"):
        model = make_toy().model
        result = prune_layerwise(model, toy.batches, method, density=0.4)
        assert result.density == pytest.approx(0.4, abs=0.005)
        errors[method] = float((model[0](inputs) - dense[0](inputs)).square().sum())
    assert errors["compensated-exchange"] < errors["sparsegpt"]
