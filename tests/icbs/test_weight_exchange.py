"""Weight exchange compared with the error computed from scratch."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.config.constraints import Pattern
from icbs.layerwise import exchange_weights


def problem(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(3 * columns, columns, generator=generator, dtype=torch.float64) @ mixing
    return weight, inputs.T @ inputs / len(inputs)


def errors(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    lost = weight * ~mask
    return 0.5 * ((lost @ gram) * lost).sum(dim=1)


def wanda(weight: torch.Tensor, gram: torch.Tensor, keep: int) -> torch.Tensor:
    best = (weight.abs() * gram.diagonal().sqrt()).topk(keep, dim=1).indices
    return torch.zeros_like(weight, dtype=torch.bool).scatter_(1, best, True)


@settings(max_examples=25)
@given(columns=st.integers(4, 12), share=st.floats(0.2, 0.8), seed=st.integers(0, 10_000))
def test_no_improving_exchange_is_left(columns, share, seed):
    """No exchange of two weights lowers the error."""
    weight, gram = problem(4, columns, seed)
    keep = min(columns - 1, max(1, round(share * columns)))
    start = wanda(weight, gram, keep)
    mask = exchange_weights(weight, gram, start)
    assert (mask.sum(dim=1) == keep).all()
    before, after = errors(weight, gram, start), errors(weight, gram, mask)
    assert (after <= before).all()
    for row in range(4):
        pruned, kept = ((mask[row] == side).nonzero()[:, 0].tolist() for side in (False, True))
        for p, q in itertools.product(pruned, kept):
            other = mask[row : row + 1].clone()
            other[0, p], other[0, q] = True, False
            found = errors(weight[row : row + 1], gram, other)
            assert float(found) >= float(after[row]) * (1 - 1e-5)


@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(4, 8), Pattern(1, 3)])
def test_patterns_are_kept_and_no_improving_exchange_is_left(pattern):
    weight, gram = problem(5, 24, 0)
    start = pattern.mask(weight.abs() * gram.diagonal().sqrt())
    mask = exchange_weights(weight, gram, start, pattern)
    assert set(mask.view(-1, pattern.run).sum(dim=1).tolist()) == {pattern.keep}
    after = errors(weight, gram, mask)
    assert after.sum() < 0.95 * errors(weight, gram, start).sum()
    for row, base in itertools.product(range(5), range(0, 24, pattern.run)):
        for p, q in itertools.permutations(range(base, base + pattern.run), 2):
            if mask[row, q] and not mask[row, p]:
                other = mask[row : row + 1].clone()
                other[0, p], other[0, q] = True, False
                found = errors(weight[row : row + 1], gram, other)
                assert float(found) >= float(after[row]) * (1 - 1e-5)


def test_it_lowers_the_error_of_wandas_mask_by_much():
    weight, gram = problem(30, 100, 1)
    start = wanda(weight, gram, 50)
    mask = exchange_weights(weight, gram, start)
    after, before = errors(weight, gram, mask), errors(weight, gram, start)
    assert (after < before).all()
    assert after.sum() < 0.7 * before.sum()
    # In float32 no more than rounding is lost.
    single = exchange_weights(weight.float(), gram.float(), start)
    assert errors(weight, gram, single).sum() < 1.02 * after.sum()


def test_threads_and_memory_layout_do_not_show():
    weight, gram = problem(50, 40, 2)
    start = wanda(weight, gram, 20)
    before, threads = start.clone(), torch.get_num_threads()
    masks = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            masks.append(exchange_weights(weight, gram, start))
            masks.append(exchange_weights(weight.T.contiguous().T, gram, start.T.contiguous().T))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert torch.equal(start, before)


def test_an_output_that_lost_nothing_or_all_stays():
    weight, gram = problem(2, 8, 3)
    mask = torch.tensor([[True] * 8, [False] * 8])
    assert torch.equal(exchange_weights(weight, gram, mask), mask)
