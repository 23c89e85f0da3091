"""Derived seeds: pinned, so that a seed keeps its numbers, and distinct."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers import OptionError
from solvers.streams import bounded_seed, read_words, spawn_seeds, trial_seed

seeds = st.integers(0, 2**70)


def test_a_seed_keeps_its_numbers():
    assert spawn_seeds(7, 3) == [2083679832, 3939563265, 4185785210]
    assert [trial_seed(7, number) for number in range(3)] == [2083679832, 369571992, 1009178997]
    assert read_words(7, 3).tolist() == [2083679832, 3939563265, 4185785210]
    assert spawn_seeds(2**64 + 1, 1) == [1501029259]


@given(seeds, st.integers(1, 20))
def test_more_problems_leave_the_seeds_of_the_first_as_they_were(seed, count):
    assert spawn_seeds(seed, count + 5)[:count] == spawn_seeds(seed, count)


@given(seeds)
def test_no_generator_of_a_call_is_seeded_like_another(seed):
    """A call on twenty problems with eight trials, each of four reads."""
    problems = spawn_seeds(seed, 20)
    trials = [trial_seed(s, number) for s, number in itertools.product(problems, range(8))]
    reads = [word for s in trials for word in read_words(s, 4).tolist()]
    for level in (problems, trials, reads):
        # Of 32-bit words some may be equal by chance: one pair in 2^32 / 640².
        assert len(set(level)) >= len(level) - 1
    states = [np.random.default_rng(s).bit_generator.state["state"]["state"] for s in trials]
    assert len(set(states)) >= len(states) - 1


def test_none_stays_none_or_is_fresh():
    assert spawn_seeds(None, 2) == [None, None]
    assert trial_seed(None, 3) is None
    assert not np.array_equal(read_words(None, 4), read_words(None, 4))


def test_seeds_are_checked_and_bounded():
    with pytest.raises(OptionError, match="-1"):
        spawn_seeds(-1, 2)
    assert bounded_seed(2**40 + 3, 2**31) == 3
