"""Random feasible states: uniform, reproducible, and of the requested number."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from brute_force import random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from problems import CardinalityQUBO
from solvers import OptionError, Stop, solve
from solvers.random_sampling import Sampler


def feasible_states(problem: CardinalityQUBO) -> np.ndarray:
    states = np.array(list(itertools.product([0, 1], repeat=problem.n)), dtype=np.uint8)
    return states[problem.is_feasible(states)]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 30),
    groups=st.sampled_from([1, 2, 5]),
    count=st.integers(1, 50),
)
def test_all_states_are_feasible_and_follow_from_the_seed(seed, n, groups, count):
    problem = random_problem(n, groups, False, 1.0, seed)
    states = Sampler(problem, seed).draw(count)
    assert states.shape == (count, n)
    assert problem.is_feasible(states).all()
    np.testing.assert_array_equal(states, Sampler(problem, seed).draw(count))


@pytest.mark.parametrize(
    ("k", "groups"), [(2, None), (4, None), (3, None), ([1, 2], [0, 1, 0, 1, 0, 1])]
)
def test_every_feasible_state_is_as_likely(k, groups):
    """Few ones and few zeros, one group and two, over several batches of one stream."""
    problem = CardinalityQUBO(np.zeros((6, 6)), k, groups=groups)
    sampler = Sampler(problem, 7)
    drawn = np.concatenate([sampler.draw(3000) for _ in range(10)])
    counts = Counter(map(bytes, drawn))
    assert set(counts) == {bytes(state) for state in feasible_states(problem)}
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_the_best_of_many_is_the_optimum_and_the_moments_are_right():
    problem = random_problem(9, 2, True, 3.0, 4)
    energies = problem.energy(feasible_states(problem))
    answer = solve(problem, "random", seed=0, draws=20_000)
    assert answer.energy == pytest.approx(energies.min())
    assert answer.stop is Stop.ITERATION_LIMIT
    assert answer.info["states"] == 20_000
    error = energies.std() / np.sqrt(20_000)
    assert answer.info["mean"] == pytest.approx(energies.mean(), abs=5 * error)
    assert answer.info["std"] == pytest.approx(energies.std(), rel=0.05)


def test_reads_are_the_best_states_of_all():
    problem = random_problem(12, 1, False, 1.0, 2)
    drawn = Sampler(problem, 5).draw(40)
    answer = solve(problem, "random", seed=5, draws=10, num_reads=4)
    assert answer.info["states"] == 40
    np.testing.assert_allclose(answer.energies, np.sort(problem.energy(drawn))[:4])


def test_incumbents_fall_and_the_callback_stops():
    rng = np.random.default_rng(0)
    problem = CardinalityQUBO.from_factors(rng.normal(size=(20, 200)), rng.normal(size=200), 100)
    seen: list[float] = []
    answer = solve(problem, "random", seed=0, draws=100_000, callback=lambda t, e: seen.append(e))
    assert len(seen) > 1
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(answer.energy)
    stopped = solve(problem, "random", seed=0, draws=100_000, callback=lambda t, e: True)
    assert stopped.stop is Stop.INTERRUPTED
    assert stopped.info["states"] < 100_000
    assert stopped.energy == pytest.approx(seen[0])


def test_a_start_is_the_first_incumbent():
    problem = random_problem(14, 1, False, 1.0, 3)
    best = solve(problem, "exhaustive")
    seen: list[float] = []
    again = solve(
        problem, "random", initial_state=best.x, seed=0, callback=lambda t, e: seen.append(e)
    )
    assert seen == pytest.approx([best.energy])
    assert again.energy == pytest.approx(best.energy)


def test_a_time_limit_is_filled():
    problem = random_problem(40, 1, True, 1.0, 3)
    for limit in (0.1, 0.5):
        begin = time.perf_counter()
        answer = solve(problem, "random", seed=0, time_limit=limit)
        assert time.perf_counter() - begin >= limit
        assert answer.stop is Stop.TIME_LIMIT
        assert answer.info["states"] > 0


def test_draws_out_of_range():
    with pytest.raises(OptionError, match="draws is 0"):
        solve(random_problem(5, 1, False, 1.0, 1), "random", draws=0)
