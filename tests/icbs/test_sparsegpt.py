"""SparseGPT's sweep compared with optimal brain surgery, column by column."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.config.constraints import Pattern
from icbs.layerwise import sparsegpt


def problem(
    rows: int, columns: int, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, and second moments of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype)
    mixing = torch.randn(columns, columns, generator=generator, dtype=dtype)
    inputs = torch.randn(4 * columns, columns, generator=generator, dtype=dtype) @ mixing
    return weight, inputs.T @ inputs / len(inputs)


def error(weight: torch.Tensor, dense: torch.Tensor, gram: torch.Tensor) -> float:
    """``‖(W - W⁰)X‖²/N``."""
    change = (weight - dense).double()
    return float(((change @ gram.double()) * change).sum())


def reference(
    weight: torch.Tensor, gram: torch.Tensor, keep: int, pattern: Pattern | None, damping: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sweep by its formula: inverts the remaining Hessian, column by column."""
    rows, columns = weight.shape
    H = 2 * gram + damping * 2 * gram.diagonal().mean() * torch.eye(columns, dtype=gram.dtype)
    inverses = [torch.linalg.inv(H[j:, j:]) for j in range(columns)]
    spread = torch.stack([inverse[0, 0] for inverse in inverses])
    w, mask = weight.clone(), torch.zeros(rows, columns, dtype=torch.bool)
    if pattern is None:
        worth = w**2 / spread
        mask = worth >= worth.flatten().sort(descending=True).values[keep - 1]
    for j in range(columns):
        if pattern is not None and j % pattern.run == 0:
            run = range(j, j + pattern.run)
            for i in range(rows):
                worth = {c: float(w[i, c] ** 2 / spread[c]) for c in run}
                for c in sorted(run, key=lambda c: -worth[c])[: pattern.keep]:
                    mask[i, c] = True
        for i in range(rows):
            if not mask[i, j]:
                w[i, j:] -= w[i, j] / inverses[j][0, 0] * inverses[j][0]
                w[i, j] = 0
    return w, mask


@settings(max_examples=25)
@given(
    rows=st.integers(1, 6),
    runs=st.integers(1, 6),
    share=st.floats(0.1, 0.9),
    pattern=st.sampled_from([None, Pattern(2, 4), Pattern(1, 4)]),
    damping=st.sampled_from([0.01, 0.1]),
    seed=st.integers(0, 10_000),
)
def test_one_block_of_columns_is_the_surgeon_written_out(rows, runs, share, pattern, damping, seed):
    weight, gram = problem(rows, 4 * runs, seed)
    keep = max(1, round(share * weight.numel()))
    expected, mask = reference(weight, gram, keep, pattern, damping)
    found, kept = sparsegpt(weight, gram, keep, pattern, damping=damping)
    assert torch.equal(kept, mask)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@settings(max_examples=25)
@given(
    columns=st.integers(2, 40),
    width=st.integers(1, 50),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_counts_are_exact_over_many_blocks_of_columns(columns, width, share, seed):
    weight, gram = problem(7, columns, seed)
    keep = round(share * weight.numel())
    found, mask = sparsegpt(weight, gram, keep, width=width)
    assert mask.sum() == keep
    assert (found[~mask] == 0).all()
    for start in range(0, columns, width):
        part = mask[:, start : start + width]
        assert abs(int(part.sum()) - keep / weight.numel() * part.numel()) <= 1


@pytest.mark.parametrize("width", [3, 10, 128])
@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(4, 8), Pattern(1, 3)])
def test_patterns_are_exact_whatever_the_block_of_columns(pattern, width):
    weight, gram = problem(5, 48, 1)
    _, mask = sparsegpt(weight, gram, 0, pattern, width=width)
    assert set(mask.view(-1, pattern.run).sum(dim=1).tolist()) == {pattern.keep}


@pytest.mark.parametrize("pattern", [None, Pattern(2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_update_lowers_the_layer_error_of_its_own_mask(pattern, dtype):
    for seed in range(5):
        weight, gram = problem(24, 200, seed, dtype)
        found, mask = sparsegpt(weight, gram, weight.numel() // 2, pattern)
        assert found.dtype == dtype
        assert error(found, weight, gram) < 0.8 * error(weight * mask, weight, gram)


def test_weights_of_dead_inputs_are_zero_and_have_no_effect():
    weight, gram = problem(6, 20, 0)
    gram[:, [3, 11]] = gram[[3, 11]] = 0
    found, mask = sparsegpt(weight, gram, 60)
    assert not mask[:, [3, 11]].any()
    assert (found[:, [3, 11]] == 0).all()
    assert torch.isfinite(found).all()
    alive = [c for c in range(20) if c not in (3, 11)]
    damped = 0.01 * (gram.diagonal().sum() + 1) / gram.diagonal()[alive].mean() / 20
    expected, _ = sparsegpt(weight[:, alive], gram[alive][:, alive], 60, damping=float(damped))
    torch.testing.assert_close(found[:, alive], expected)


def test_nothing_pruned_leaves_the_weights_alone():
    weight, gram = problem(4, 12, 0)
    before = weight.clone()
    found, mask = sparsegpt(weight, gram, weight.numel())
    assert mask.all()
    assert torch.equal(found, before)
    sparsegpt(weight, gram, 10)
    assert torch.equal(weight, before)
