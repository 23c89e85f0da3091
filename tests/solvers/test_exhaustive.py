from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from brute_force import lowest_energy, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import Status, Stop, UnsupportedError, solve


@given(
    n=st.integers(1, 9),
    groups=st.integers(1, 3),
    factored=st.booleans(),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_finds_the_optimum_of_brute_force(n, groups, factored, scale, seed):
    problem = random_problem(n, groups, factored, scale, seed)
    best = lowest_energy(problem)
    answer = solve(problem, "exhaustive")
    assert problem.is_feasible(answer.x)
    assert answer.energy == pytest.approx(best, rel=1e-9, abs=1e-9 * scale)
    assert answer.status is Status.OPTIMAL
    assert answer.stop is Stop.PROVEN
    assert answer.bound == answer.energy


@pytest.mark.parametrize("k", range(1, 10))
def test_visits_every_state_once(k):
    """A planted optimum is found at any place of the enumeration."""
    n = 10
    for ones in itertools.combinations(range(n), k):
        target = np.bincount(ones, minlength=n)
        # The squared distance to the target, as linear terms.
        problem = CardinalityQUBO(np.diag(1.0 - 2.0 * target), k)
        answer = solve(problem, "exhaustive")
        np.testing.assert_array_equal(answer.x, target)
        assert answer.info["states"] == math.comb(n, k)


def test_refuses_too_many_states_by_their_number():
    problem = CardinalityQUBO(np.eye(32), 16)
    with pytest.raises(UnsupportedError, match=f"{math.comb(32, 16):,}"):
        solve(problem, "exhaustive", max_states=1000)
    with pytest.raises(UnsupportedError, match="32"):
        solve(CardinalityQUBO(np.eye(33), 1), "exhaustive")


def test_small_k_of_many_variables_is_allowed():
    problem = CardinalityQUBO(np.diag(np.arange(32.0)[::-1]), 2)
    assert np.flatnonzero(solve(problem, "exhaustive").x).tolist() == [30, 31]


def test_time_limit_returns_the_incumbent_without_a_claim():
    Q = np.random.default_rng(0).normal(size=(32, 32))
    problem = CardinalityQUBO(Q + Q.T, 16)
    start = np.repeat([1, 0], 16)
    answer = solve(problem, "exhaustive", time_limit=0.05, initial_state=start)
    assert answer.stop is Stop.TIME_LIMIT
    assert answer.status is Status.FEASIBLE
    assert answer.bound is None
    assert answer.energy <= problem.energy(start)


def test_callback_reports_falling_energies_and_stops():
    Q = np.random.default_rng(1).normal(size=(26, 26))
    problem = CardinalityQUBO(Q + Q.T, 13, offset=5.0)
    seen: list[float] = []
    answer = solve(problem, "exhaustive", callback=lambda _, energy: seen.append(energy))
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(answer.energy)
    stopped = solve(problem, "exhaustive", callback=lambda *_: True)
    assert stopped.stop is Stop.INTERRUPTED
    assert stopped.status is Status.FEASIBLE
