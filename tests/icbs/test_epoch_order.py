"""The order of samples."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from icbs.data.samples import epoch_order

seeds = st.integers(0, 2**63 - 1)


@given(st.integers(1, 50), st.integers(0, 10**12), st.data(), seeds)
def test_the_number_of_indices_without_repetition(size, seen, data, seed):
    count = data.draw(st.integers(1, size))
    found = epoch_order(size, seen, count, seed)
    assert len(found) == len(set(found.tolist())) == count
    assert 0 <= int(found.min()) <= int(found.max()) < size
    assert torch.equal(found, epoch_order(size, seen, count, seed))


@given(st.integers(1, 20), st.data(), seeds)
def test_no_sample_is_repeated_within_an_epoch(size, data, seed):
    """For passes of any size."""
    taken: list[int] = []
    while len(taken) < 4 * size:
        count = data.draw(st.integers(1, size))
        taken += epoch_order(size, len(taken), count, seed).tolist()
    for start in range(len(taken) - size + 1):
        assert len(set(taken[start : start + size])) == size


def test_seeds_differ():
    assert not torch.equal(epoch_order(100, 0, 100, 1), epoch_order(100, 0, 100, 2))
