"""Samples come in turn."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from icbs.data.samples import epoch_order

seeds = st.integers(0, 2**63 - 1)


@given(st.integers(1, 50), st.integers(0, 10**12), st.data(), seeds)
def test_as_many_as_asked_for_and_none_twice(size, seen, data, seed):
    count = data.draw(st.integers(1, size))
    found = epoch_order(size, seen, count, seed)
    assert len(found) == len(set(found.tolist())) == count
    assert 0 <= int(found.min()) <= int(found.max()) < size
    assert torch.equal(found, epoch_order(size, seen, count, seed))


@given(st.integers(1, 20), st.data(), seeds)
def test_none_comes_again_before_all_others_have_come(size, data, seed):
    """Whatever the sizes of the passes."""
    taken: list[int] = []
    while len(taken) < 4 * size:
        count = data.draw(st.integers(1, size))
        taken += epoch_order(size, len(taken), count, seed).tolist()
    for start in range(len(taken) - size + 1):
        assert len(set(taken[start : start + size])) == size


def test_seeds_differ():
    assert not torch.equal(epoch_order(100, 0, 100, 1), epoch_order(100, 0, 100, 2))
