"""CP-SAT against brute force: answers, proofs, and bounds that hold for the real problem."""

from __future__ import annotations

import numpy as np
import pytest
from brute import lowest_energy, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import OptionError, Status, Stop, solve


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 9),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    factored=st.booleans(),
    groups=st.sampled_from([1, 1, 3]),
    rlt=st.booleans(),
)
def test_proves_the_optimum(seed, n, scale, factored, groups, rlt):
    p = random_problem(n, groups, factored, scale, seed)
    solution = solve(p, "cpsat", seed=0, workers=1, rlt=rlt)
    energy = lowest_energy(p)
    size = np.abs(p.Q).sum() + abs(p.offset)
    assert solution.energy == pytest.approx(energy, rel=0, abs=1e-9 * size)
    assert solution.status is Status.OPTIMAL
    # The bound is a true one, rounding of the coefficients included.
    assert solution.bound <= energy + 1e-14 * size
    assert solution.bound >= energy - 1e-8 * size


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_coarse_coefficients_give_an_honest_bound_and_no_proof(seed):
    p = random_problem(8, 1, False, 1.0, seed)
    solution = solve(p, "cpsat", seed=0, workers=1, bits=8)
    energy = lowest_energy(p)
    assert solution.bound is None or solution.bound <= energy + 1e-12
    if solution.info.get("rounding", 0) > 1e-6:
        assert solution.status is Status.FEASIBLE


def test_time_limit_returns_incumbent_and_bound():
    rng = np.random.default_rng(0)
    A, linear = rng.normal(size=(30, 70)), rng.normal(size=70)
    p = CardinalityQUBO.from_factors(A, linear, 35)
    start = np.zeros(70, np.uint8)
    start[:35] = 1
    solution = solve(p, "cpsat", time_limit=2.0, seed=0, initial_state=start, workers=1)
    assert solution.stop is Stop.TIME_LIMIT
    assert solution.status is Status.FEASIBLE
    assert solution.energy <= p.energy(start)
    assert solution.bound is None or solution.bound <= solve(p, "anneal", seed=0).energy


def test_incumbents_are_reported_and_the_callback_can_stop():
    p = random_problem(14, 1, False, 1.0, 4)
    seen: list[float] = []
    solution = solve(p, "cpsat", workers=1, callback=lambda t, e: seen.append(e))
    assert seen
    assert seen[-1] == pytest.approx(solution.energy)
    stopped = solve(p, "cpsat", workers=1, callback=lambda t, e: True)
    assert stopped.x is not None
    assert stopped.stop in (Stop.INTERRUPTED, Stop.PROVEN)


@pytest.mark.parametrize("options", [{"workers": 0}, {"bits": 60}])
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        solve(random_problem(5, 1, False, 1.0, 1), "cpsat", **options)
