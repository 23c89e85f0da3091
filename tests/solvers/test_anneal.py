"""The annealer against brute force and float64 recomputation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import solve


def random_problem(seed, n, k=None, groups=None, factored=False, scale=1.0):
    rng = np.random.default_rng(seed)
    k = n // 2 if k is None else k
    if factored:
        A = (scale * rng.standard_normal((max(1, n // 4), n))).astype(np.float32)
        linear = scale**2 * n / 4 * rng.standard_normal(n)
        return CardinalityQUBO.from_factors(A, linear, k, groups=groups)
    Q = rng.standard_normal((n, n))
    return CardinalityQUBO((scale * (Q + Q.T)).astype(np.float32), k, groups=groups)


def feasible_states(p):
    states = np.array(
        [np.isin(np.arange(p.n), c) for c in combinations(range(p.n), p.k)], dtype=np.uint8
    )
    return states[p.is_feasible(states)]


def optimum(p):
    return p.energy(feasible_states(p)).min()


def is_swap_local(p, x, slack):
    f = p.fields(x)
    change = f[None, :] - f[:, None] - 2 * p.Q
    allowed = (x[:, None] == 1) & (x[None, :] == 0) & (p.groups[:, None] == p.groups[None, :])
    return not (allowed & (change < -slack)).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 10), st.booleans(), st.sampled_from([1e-8, 1, 1e8]))
def test_finds_the_optimum_of_small_problems(seed, n, factored, scale):
    p = random_problem(seed, n, 1 + seed % (n - 1), factored=factored, scale=scale)
    s = solve(p, "anneal", seed=seed, num_reads=4)
    best = optimum(p)
    assert s.energy <= best + 1e-5 * abs(best)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_groups_keep_their_own_cardinality(seed, factored):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, 12)
    sizes = np.bincount(groups, minlength=3)
    k = [int(rng.integers(0, s + 1)) for s in sizes]
    p = random_problem(seed, 12, k, groups, factored)
    s = solve(p, "anneal", seed=1, num_reads=4)
    assert p.is_feasible(s.x)
    best = optimum(p)
    assert s.energy <= best + 1e-5 * abs(best)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(5, 150), st.booleans(), st.booleans())
def test_answer_is_swap_local(seed, n, factored, grouped):
    groups = np.arange(n) % 3 if grouped else None
    k = [n // 9] * 3 if grouped else n // 3
    p = random_problem(seed, n, k, groups, factored)
    s = solve(p, "anneal", seed=seed)
    assert is_swap_local(p, s.x, 1e-4 * np.abs(p.fields(s.x)).max())


def test_same_seed_same_answer_alone_and_in_a_batch():
    problems = [random_problem(i, 90, factored=bool(i % 2)) for i in range(6)]
    first = solve(problems, "anneal", seed=5, num_reads=2)
    again = solve(problems, "anneal", seed=5, num_reads=2)
    for p, a, b in zip(problems, first, again, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)
        alone = solve(p, "anneal", seed=a.info["seed"], num_reads=2)
        np.testing.assert_array_equal(a.samples, alone.samples)


def test_callback_sees_falling_energies_and_can_stop():
    p = random_problem(0, 400)
    seen = []

    def stop(seconds, energy):
        seen.append(energy)
        return len(seen) == 2

    s = solve(p, "anneal", seed=0, time_limit=30.0, callback=stop)
    assert s.stop.value == "interrupted"
    assert seen == sorted(seen, reverse=True)


def test_time_limit_is_used_and_kept():
    s = solve(random_problem(0, 300), "anneal", seed=0, time_limit=0.3)
    assert s.stop.value == "time limit"
    assert 0.2 < s.timing.total < 3.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40), st.booleans())
def test_ends_where_no_swap_makes_a_difference(seed, n, factored):
    """Repeated rounding errors must not count as gains."""
    value = np.random.default_rng(seed).random()
    if factored:
        p = CardinalityQUBO.from_factors(np.full((3, n), value), np.full(n, value), n // 2)
    else:
        p = CardinalityQUBO(np.full((n, n), value, np.float32), n // 2)
    assert solve(p, "anneal", seed=seed).x.sum() == n // 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 60), st.sampled_from([1e2, 1e4, 1e6]))
def test_what_all_linear_terms_share_changes_nothing(seed, n, shared):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n // 3 + 1, n)).astype(np.float32)
    linear = n / 4 * rng.standard_normal(n)
    plain = CardinalityQUBO.from_factors(A, linear, n // 2)
    raised = CardinalityQUBO.from_factors(A, linear + shared, n // 2)
    first, second = (solve(p, "anneal", seed=seed) for p in (plain, raised))
    difference = plain.energy(second.x) - first.energy
    assert abs(difference) <= 1e-3 * abs(first.energy) + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 80), st.sampled_from([2.0**-12, 2.0**-5, 2.0**9]))
def test_a_power_of_two_changes_no_bit(seed, n, scale):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n // 4 + 1, n)).astype(np.float32)
    linear = n / 4 * rng.standard_normal(n)
    plain = CardinalityQUBO.from_factors(A, linear, n // 2)
    scaled = CardinalityQUBO.from_factors(A * np.float32(scale), linear * scale**2, n // 2)
    first, second = (solve(p, "anneal", seed=seed) for p in (plain, scaled))
    np.testing.assert_array_equal(first.x, second.x)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_incumbents_fall_over_all_reads(seed, factored):
    p = random_problem(seed, 50, 25, factored=factored)
    heard = []
    solve(p, "anneal", seed=seed, num_reads=8, callback=lambda _, energy: heard.append(energy))
    assert heard
    assert (np.diff(heard) < 0).all()


def test_a_time_limit_also_holds_for_the_last_look():
    rng = np.random.default_rng(0)
    n, m = 20_000, 300
    A = rng.standard_normal((m, n)).astype(np.float32)
    p = CardinalityQUBO.from_factors(A, rng.standard_normal(n), n // 2)
    solve(p, "anneal", seed=0, time_limit=0.01)
    assert solve(p, "anneal", seed=0, time_limit=0.05).timing.solve < 2
