import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO, InvalidProblemError
from problems.penalty import POLICIES, Penalty, exchange_penalty, penalised, penalty_for
from problems.repair import repair

SUFFICIENT = ["exchange", "verma-lewis", "sum-abs"]


@st.composite
def small_problems(draw, max_groups=3):
    n = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    Q = rng.normal(size=(n, n)) * rng.choice([0.01, 1.0, 100.0], size=n)
    Q = Q + Q.T + np.diag(rng.normal(size=n) * draw(st.sampled_from([0.1, 10.0])))
    groups = rng.integers(0, draw(st.integers(1, max_groups)), size=n)
    sizes = np.bincount(groups)
    k = [int(rng.integers(0, size + 1)) for size in sizes]
    offset = draw(st.sampled_from([0.0, -3.5]))
    return CardinalityQUBO(Q, k, groups=groups, offset=offset)


def all_states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(small_problems(), st.floats(0, 50), st.floats(-20, 20))
def test_penalised_energy_is_energy_plus_both_terms(problem, strength, shift):
    G = problem.num_groups
    penalty = Penalty(strength * np.arange(1, G + 1), np.full(G, shift))
    X = all_states(problem.n)
    off = problem.count(X) - problem.cardinalities
    expected = problem.energy(X) + off**2 @ penalty.strength + off @ penalty.shift
    np.testing.assert_allclose(penalised(problem, penalty).energy(X), expected, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(small_problems(), st.sampled_from(SUFFICIENT))
def test_sufficient_policies_have_a_feasible_minimum(problem, policy):
    X = all_states(problem.n)
    energies = penalised(problem, penalty_for(problem, policy)).energy(X)
    feasible = problem.is_feasible(X)
    scale = np.abs(problem.Q).max()
    assert energies[feasible].min() <= energies.min() + 1e-9 * scale


@settings(max_examples=40, deadline=None)
@given(small_problems(max_groups=1))
def test_exchange_needs_no_more_than_verma_lewis(problem):
    assert (
        exchange_penalty(problem).strength[0]
        <= penalty_for(problem, "verma-lewis").strength[0] + 1e-9
    )


def test_exchange_needs_almost_nothing_without_couplings():
    problem = CardinalityQUBO(np.diag(np.arange(1.0, 21.0) ** 2), k=10)
    assert exchange_penalty(problem).strength[0] < 1.0
    assert penalty_for(problem, "verma-lewis").strength[0] == 400.0


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_scale_with_the_problem(policy):
    rng = np.random.default_rng(3)
    Q = rng.normal(size=(12, 12))
    Q = Q + Q.T
    one = penalty_for(CardinalityQUBO(Q, k=5), policy)
    many = penalty_for(CardinalityQUBO(1e-6 * Q, k=5), policy)
    np.testing.assert_allclose(many.strength, 1e-6 * one.strength, rtol=1e-9)
    np.testing.assert_allclose(many.shift, 1e-6 * one.shift, rtol=1e-9)
    assert one.strength[0] > 0 or policy == "linear"


def test_raised_steps_against_the_violation():
    penalty = Penalty(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    after = penalty.raised(np.array([1.0, -0.5]), growth=1.5)
    np.testing.assert_allclose(after.strength, [3.0, 4.5])
    np.testing.assert_allclose(after.shift, [4.0, -2.0])


def minimiser(problem, penalty):
    """Return the count of a lowest state of the penalised cost."""
    X = all_states(problem.n)
    return problem.count(X[np.argmin(penalised(problem, penalty).energy(X))][None])[0]


@settings(max_examples=60, deadline=None)
@given(small_problems())
def test_linear_adds_no_couplings(problem):
    penalty = penalty_for(problem, "linear").raised(np.ones(problem.num_groups), 2.0)
    added = penalised(problem, penalty).Q - problem.Q
    np.testing.assert_array_equal(added - np.diag(np.diag(added)), 0)


@settings(max_examples=100, deadline=None)
@given(small_problems(max_groups=1))
def test_bisection_finds_each_count_that_a_multiplier_can_have(problem):
    """Those at which the best energy of a count lies below the chord of any two others."""
    X = all_states(problem.n)
    counts, energies = problem.count(X)[:, 0], problem.energy(X)
    best = np.array([energies[counts == c].min() for c in range(problem.n + 1)])
    k, scale = problem.k, np.abs(best).max()
    up = min(((best[c] - best[k]) / (c - k) for c in range(k + 1, len(best))), default=np.inf)
    down = max(((best[k] - best[c]) / (k - c) for c in range(k)), default=-np.inf)
    penalty = penalty_for(problem, "linear")
    for _ in range(60):
        off = minimiser(problem, penalty) - problem.cardinalities
        if not off.any():
            break
        penalty = penalty.raised(off.astype(float), 2.0)
    if up - down > 1e-6 * scale:
        assert not off.any()
        assert down - 1e-9 * scale <= -penalty.shift[0] <= up + 1e-9 * scale
    elif down - up > 1e-6 * scale:
        assert off.any()
        assert penalty.high[0] - penalty.low[0] < 1e-6 * scale
        below = Penalty(penalty.strength, penalty.low)
        above = Penalty(penalty.strength, penalty.high)
        assert minimiser(problem, above)[0] < k < minimiser(problem, below)[0]


def test_a_number_is_the_strength():
    problem = CardinalityQUBO(np.eye(4), k=[1, 1], groups=[0, 0, 1, 1])
    np.testing.assert_array_equal(penalty_for(problem, 2.5).strength, [2.5, 2.5])


@pytest.mark.parametrize("policy", ["nonsense", -1.0, float("nan"), float("inf")])
def test_bad_policies_are_refused(policy):
    with pytest.raises(InvalidProblemError, match="penalty"):
        penalty_for(CardinalityQUBO(np.eye(3), k=1), policy)


@settings(max_examples=60, deadline=None)
@given(small_problems(), st.integers(0, 2**32 - 1))
def test_repair_is_feasible_minimal_and_greedy(problem, seed):
    X = np.random.default_rng(seed).integers(0, 2, size=(5, problem.n)).astype(np.uint8)
    fixed = repair(problem, X)
    assert problem.is_feasible(fixed).all()
    off = np.abs(problem.count(X) - problem.cardinalities).sum(axis=1)
    np.testing.assert_array_equal((fixed != X).sum(axis=1), off)
    for before, after, flips in zip(X, fixed, off, strict=True):
        if flips == 1:
            flipped = []
            for i in range(problem.n):
                candidate = before.copy()
                candidate[i] ^= 1
                if problem.is_feasible(candidate):
                    flipped.append(problem.energy(candidate))
            assert problem.energy(after) == pytest.approx(min(flipped), abs=1e-9)


def test_repair_takes_one_state_and_leaves_its_argument_alone():
    problem = CardinalityQUBO(np.diag([3.0, 1.0, 2.0]), k=1)
    x = np.ones(3, dtype=np.uint8)
    np.testing.assert_array_equal(repair(problem, x), [0, 1, 0])
    np.testing.assert_array_equal(x, [1, 1, 1])
