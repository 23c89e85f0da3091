"""Samples come in turn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icbs.data.turns import in_turn


@given(st.integers(1, 50), st.integers(0, 500), st.data(), st.integers(0, 2**31))
def test_as_many_as_asked_for_and_none_twice(size, first, data, seed):
    count = data.draw(st.integers(1, size))
    found = in_turn(size, first, count, seed)
    assert len(found) == len(set(found.tolist())) == count
    assert 0 <= int(found.min()) <= int(found.max()) < size
    assert torch.equal(found, in_turn(size, first, count, seed))


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 5))
def test_a_round_sees_every_sample_once(count, batches, rounds):
    size = count * batches
    for number in range(rounds):
        taken = [in_turn(size, number * size + k * count, count, 3) for k in range(batches)]
        assert sorted(torch.cat(taken).tolist()) == list(range(size))


def test_rounds_and_seeds_differ():
    one, other, seeded = (in_turn(100, first, 100, s) for first, s in ((0, 1), (100, 1), (0, 2)))
    assert not torch.equal(one, other)
    assert not torch.equal(one, seeded)


@pytest.mark.parametrize("first", [6, 9])
def test_at_the_end_of_a_round_the_rest_comes_first(first):
    rest = in_turn(10, first, 10 - first, 0)
    assert torch.equal(in_turn(10, first, 8, 0)[: 10 - first], rest)
