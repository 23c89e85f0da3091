"""Kernels of the annealer against float64 NumPy and brute force."""

from __future__ import annotations

from itertools import islice

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers.anneal import model as model_module
from solvers.anneal.core import anneal_core
from solvers.anneal.core_selection import select_core, select_smallest, selection_score
from solvers.anneal.layout import LaneLayout
from solvers.anneal.model import KernelModel
from solvers.anneal.relaxation import solve_relaxation
from solvers.anneal.relaxation_kernel import relax
from solvers.anneal.rng import exponential, seed_state, uniforms
from solvers.anneal.search import polish_state, search
from solvers.anneal.simd import dots, jit
from solvers.anneal.sweep import _worst_first
from solvers.base import Request

seeds = st.integers(0, 2**31)


def block(seed, n, num_groups=1, dense=False, m=None):
    """Return a random problem like a pruning block, and a feasible state."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n // 4 + 1 if m is None else m, n)).astype(np.float32)
    linear = n / 4 * rng.standard_normal(n)
    groups = rng.integers(0, num_groups, n)
    sizes = np.bincount(groups, minlength=num_groups)
    k = sizes // 2
    rank = np.empty(n, int)
    for g in range(num_groups):
        rank[groups == g] = rng.permutation(sizes[g])
    start = (rank < k[groups]).astype(np.uint8)
    if num_groups == 1:
        groups, k = None, int(k[0])
    p = CardinalityQUBO.from_factors(A, linear, k, groups=groups)
    if dense:
        p = CardinalityQUBO(p.Q, k, groups=groups)
    return p, start


def relaxed_energy(model, x):
    """Return the relaxed energy in float64, by the definition."""
    matrix, linear = model.quadratic.matrix.astype(float), model.quadratic.linear.astype(float)
    if model.factored:
        C = matrix @ matrix.T
    else:
        C = matrix.copy()
        np.fill_diagonal(C, model.quadratic.curv)
    x = np.maximum(x.astype(float), 0)
    return x @ C @ x + linear @ x


@jit
def products(matrix, left, right, out):
    for i in range(0, len(left), 4):
        for j in range(0, len(right), 2):
            dots(matrix, left, i, right, j, out)


@given(seeds, st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_dots_are_scalar_products(seed, depth, rows, columns):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((20, 8 * depth)).astype(np.float32)
    left, right = rng.integers(0, 20, 4 * rows), rng.integers(0, 20, 2 * columns)
    out = np.empty((4 * rows, 2 * columns), np.float32)
    products(matrix, left, right, out)
    np.testing.assert_allclose(out, matrix[left] @ matrix[right].T, atol=1e-4)


@pytest.mark.skipif(not numba.config.BOUNDSCHECK, reason="needs NUMBA_BOUNDSCHECK=1")
@pytest.mark.parametrize("at", range(4))
def test_indices_are_checked_where_numba_checks_them(at):
    """Also in intrinsics, whose array accesses numba does not see."""
    matrix, chosen = np.ones((3, 8), np.float32), np.zeros(4, np.int64)
    arguments = [matrix, chosen, chosen.copy(), np.empty((4, 4), np.float32)]
    products(*arguments)
    arguments[at] = [matrix[:0], np.array([0, 0, 3, 0]), chosen[:3], matrix[:, :4]][at].copy()
    with pytest.raises(IndexError):
        products(*arguments)


@pytest.mark.parametrize("most", [1e-45, 1e-40, 1e-38, 5e-38, 1e-30, 1.0, 1e30])
def test_the_worst_come_first_at_any_scale(most):
    """A factor that overflowed gave indices outside the buckets."""
    distance = np.random.default_rng(0).permutation(50).astype(np.float32)
    excess, plus = (distance * np.float32(most / 49)).astype(np.float32), np.float32(1)
    positions, ordered = 3 * np.arange(50), np.full(50, -1)
    top = excess.max()
    count = _worst_first(excess, positions, plus, np.float32(0), top or plus, ordered)
    assert set(ordered[:count]) == set(positions[excess > 0])
    if most > 1e-37:
        assert count == 49
        assert (np.diff(distance[ordered[:count] // 3]) < 49 / 16 + 1).all()


@given(seeds, st.integers(1, 20), st.integers(1, 40), st.sampled_from("CF"))
def test_columns_are_those_of_the_factor(seed, m, n, order):
    A = np.random.default_rng(seed).standard_normal((m, n)).astype(np.float32, order=order)
    model = KernelModel.of(CardinalityQUBO.from_factors(A, np.zeros(n), 0))
    np.testing.assert_array_equal(model.quadratic.matrix[:, :m], A.T)
    assert not model.quadratic.matrix[:, m:].any()


@given(seeds, st.integers(1, 300), st.integers(1, 6))
def test_layout_keeps_lanes_inside_groups_and_restores_states(seed, n, num_groups):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, n)
    layout = LaneLayout.of(groups, num_groups)
    state = rng.integers(0, 2, n).astype(np.uint8)
    positions = layout.arrange(state.astype(np.float32), -1.0)
    np.testing.assert_array_equal(layout.restore(positions), state)
    at = layout.arrange(groups.astype(float), -1.0)
    real = np.flatnonzero(at >= 0)
    np.testing.assert_array_equal(layout.group_of(real), at[real])
    assert len(real) == n


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 200), st.integers(1, 4), st.booleans())
def test_gradients_give_the_fields(seed, n, num_groups, dense):
    p, start = block(seed, n, num_groups, dense)
    model = KernelModel.of(p)
    x = model.start(start)
    g = model.point(x).g
    curv = np.square(model.quadratic.matrix).sum(1) if model.factored else model.quadratic.curv
    fields = model.layout.arrange(p.fields(start))
    real = x >= 0
    found = g + np.where(x > 0, -curv, curv)
    # Up to a constant per group, which does not affect swaps.
    group = model.layout.group_of(np.flatnonzero(real))
    for h in range(num_groups):
        shared = (found[real] - fields[real])[group == h]
        if len(shared):
            assert np.ptp(shared) <= 2e-5 * np.abs(fields).max()


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 150), st.integers(1, 4))
def test_relaxation_is_feasible_and_no_direction_descends(seed, n, num_groups):
    p, start = block(seed, n, num_groups)
    model = KernelModel.of(p)
    x = model.start(start)
    point = model.point(x)
    before, gained = relaxed_energy(model, x), np.zeros(1)
    for _ in range(20):
        if relax(model.quadratic, point, model.layout.group_lanes, 50, gained, True):
            break
    real = x >= 0
    group = model.layout.group_of(np.arange(model.size))
    totals = np.bincount(group[real], weights=x[real], minlength=p.num_groups)
    np.testing.assert_allclose(totals, p.cardinalities, atol=1e-3)
    assert (x <= 1).all()
    after = relaxed_energy(model, x)
    assert after - before == pytest.approx(-gained[0], rel=1e-3, abs=1e-4 * abs(before))
    # The linearisation at x bounds every feasible state from below, close to the energy.
    fresh = model.point(x).g.astype(float)
    best = 0.0
    for h in range(p.num_groups):
        inside = real & (group == h)
        best += np.sort(fresh[inside])[: p.cardinalities[h]].sum() - fresh[inside] @ x[inside]
    between = (x > 0) & (x < 1)
    cost = ((x - x * x) * model.quadratic.curv)[between].mean() if between.any() else 0.0
    assert -best <= 1.01 * cost + 1e-3 * (before - after) + 1e-6 * abs(after)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(4, 150), st.integers(1, 3), st.booleans())
def test_a_core_reports_the_change_it_makes(seed, n, num_groups, dense):
    p, start = block(seed, n, num_groups, dense)
    model = KernelModel.of(p)
    x = model.start(start)
    point = model.point(x)
    score = np.where(x >= 0, np.arange(model.size), np.inf).astype(np.float32)
    size = min(1 + n // 2, int((x >= 0).sum()))
    chosen, starts = select_core(score, model.layout.group_lanes, size, False, seed_state(seed))
    hot = float(np.abs(model.quadratic.linear).mean())
    random = np.array([seed + 1])
    change = anneal_core(model.quadratic, point, chosen, starts, hot, 5, 10, random)
    end = model.layout.restore(x)
    assert p.is_feasible(end)
    assert change <= 0
    scale = np.abs(p.fields(start)).max()
    assert p.energy(end) - p.energy(start) == pytest.approx(change, abs=1e-4 * scale)
    untouched = np.setdiff1d(np.flatnonzero(x >= 0), chosen)
    np.testing.assert_array_equal(x[untouched], model.start(start)[untouched])
    fresh = model.point(x)
    margin = 1e-4 * (1 + np.abs(fresh.s).max(initial=0))
    np.testing.assert_allclose(point.s, fresh.s, atol=margin)
    if dense:
        np.testing.assert_allclose(point.g, fresh.g, atol=1e-4 * scale)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 200), st.integers(1, 4), st.booleans())
def test_a_core_has_the_lowest_scores_sorted_by_group(seed, n, num_groups, at_random):
    p, _ = block(seed, n, num_groups)
    layout = KernelModel.of(p).layout
    score = np.random.default_rng(seed).random(layout.size, np.float32).round(1)
    score[layout.arrange(np.ones(n), 0.0) == 0] = np.inf
    size = 1 + seed % int(np.isfinite(score).sum())
    before = score.copy()
    chosen, starts = select_core(score, layout.group_lanes, size, at_random, seed_state(seed))
    np.testing.assert_array_equal(score, before)
    assert len(chosen) % 8 == 0
    assert (chosen[size:] == chosen[0]).all()
    members = chosen[:size]
    assert len(np.unique(members)) == size
    assert np.isfinite(score[members]).all()
    if not at_random:
        others = np.setdiff1d(np.arange(layout.size), members)
        assert score[members].max() <= score[others].min(initial=np.inf) + 1e-6
    group = layout.group_of(members)
    assert (np.diff(group) >= 0).all()
    np.testing.assert_array_equal(starts[:-1], np.unique(group, return_index=True)[1])
    assert starts[-1] == size


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 3))
def test_random_cores_reach_all_variables_of_equal_score(seed, num_groups):
    p, _ = block(seed, 1024, num_groups)
    layout = KernelModel.of(p).layout
    score = np.where(layout.arrange(np.ones(1024), 0.0) == 1, 0, np.inf).astype(np.float32)
    state, seen = seed_state(seed), set()
    for _ in range(150):
        chosen, starts = select_core(score, layout.group_lanes, 128, True, state)
        seen |= set(chosen[: starts[-1]].tolist())
    assert len(seen) == 1024


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 200), st.integers(-40, 30))
def test_the_smallest_scores_are_selected_at_any_scale(seed, n, power):
    rng = np.random.default_rng(seed)
    score = (rng.integers(0, 30, n) * 2.0**power).astype(np.float32)
    score[rng.random(n) < 0.3] = np.inf
    score[0] = 0
    chosen = np.empty(rng.integers(1, np.isfinite(score).sum() + 1), np.int64)
    select_smallest(score, chosen)
    assert len(np.unique(chosen)) == len(chosen)
    np.testing.assert_array_equal(np.sort(score[chosen]), np.sort(score)[: len(chosen)])


def test_a_limited_polish_improves_a_large_problem():
    p, start = block(5, 2000, m=20)
    for scale in (1.0, 2.0**12):
        scaled = CardinalityQUBO.from_factors(p.A * np.float32(scale), p.linear * scale**2, p.k)
        model = KernelModel.of(scaled)
        x = model.start(start)
        polish_state(model, x, quick=True)
        end = model.layout.restore(x)
        assert scaled.is_feasible(end)
        assert (end != start).sum() > 100
        assert scaled.energy(end) < scaled.energy(start)


@given(seeds)
def test_random_numbers_are_uniform_and_exponential(seed):
    state = seed_state(seed)
    drawn = uniforms(20_000, state)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    times = np.array([exponential(state) for _ in range(2000)])
    assert times.min() > 0
    assert times.mean() == pytest.approx(1, abs=0.15)


def test_any_integer_is_a_seed():
    states = {int(seed_state(seed)[0]) for seed in (0, 1, 2, 2**31, 2**64 - 1)}
    assert len(states) == 5
    assert 0 not in states
    assert seed_state(None)[0] != seed_state(None)[0]


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(4, 200), st.integers(1, 3), st.booleans(), st.booleans())
def test_rounding_reports_its_cost(seed, n, num_groups, at_random, dense):
    p, start = block(seed, n, num_groups, dense, m=n // 8 + 1)
    model = KernelModel.of(p)
    relaxed = solve_relaxation(model, model.start(start), Request(), 1)
    state = relaxed.rounded(seed_state(seed), at_random)
    x = model.layout.restore(state.point.x)
    assert p.is_feasible(x)
    before, after = relaxed.point.x, state.point.x
    sure = (before == 0) | (before == 1)
    np.testing.assert_array_equal(after[sure], before[sure])
    scale = np.abs(p.fields(x)).max() + abs(p.energy(x))
    rise = relaxed_energy(model, after) - relaxed_energy(model, before)
    assert state.energy == pytest.approx(rise, abs=1e-5 * scale)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(4, 200), st.integers(1, 12), st.booleans())
def test_no_swap_improves_a_polished_state(seed, n, num_groups, dense):
    p, start = block(seed, n, num_groups, dense)
    model = KernelModel.of(p)
    x = model.start(start)
    polish_state(model, x)
    end = model.layout.restore(x)
    assert p.is_feasible(end)
    assert p.energy(end) <= p.energy(start) + 1e-6 * abs(p.energy(start))
    swaps = [
        (i, j)
        for i in np.flatnonzero(end)
        for j in np.flatnonzero(end == 0)
        if p.groups[i] == p.groups[j]
    ]
    f, Q = p.fields(end), p.Q
    changes = [f[j] - f[i] - 2 * Q[i, j] for i, j in swaps]
    assert min(changes, default=0.0) >= -1e-5 * np.abs(f).max()


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 100))
def test_scores_are_zero_between_the_bounds_and_infinite_without_a_move(seed, n):
    rng = np.random.default_rng(seed)
    distance = rng.random(n, np.float32)
    distance[rng.random(n) < 0.2] = 0
    distance[rng.random(n) < 0.2] = np.inf
    curv = rng.random(n, np.float32) * (rng.random(n) < 0.8)
    score = selection_score(distance, curv.astype(np.float32), int((distance == 0).sum()))
    np.testing.assert_array_equal(score == 0, distance == 0)
    np.testing.assert_array_equal(np.isinf(score), np.isinf(distance))
    # Of two variables that differ only in distance, the nearer one has the lower score.
    finite = np.flatnonzero(np.isfinite(distance) & (distance > 0))
    same = np.full(n, np.float32(0.3))
    score = selection_score(distance, same, int((distance == 0).sum()))
    by_distance = finite[np.argsort(distance[finite], kind="stable")]
    assert (np.diff(score[by_distance]) >= 0).all()


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(40, 300), st.booleans())
def test_long_searches_do_not_drift(seed, n, dense):
    """After many cores the tracked energy is that of the state, within float32 of fields."""
    p, start = block(seed, n, dense=dense)
    model = KernelModel.of(p)
    relaxed = solve_relaxation(model, model.start(start), Request(), 1)
    states = search(relaxed, seed_state(seed), endless=True)
    first = next(states)
    last = list(islice(states, 60))[-1:] or [first]
    energies = [p.energy(model.layout.restore(state.x)) for state in (first, last[0])]
    scale = np.abs(p.fields(start)).max()
    tracked = last[0].energy - first.energy
    assert tracked <= 0
    assert energies[1] - energies[0] == pytest.approx(tracked, abs=1e-4 * scale)


def test_threads_do_not_change_the_relaxation(monkeypatch):
    p, start = block(3, 400, m=70)
    model = KernelModel.of(p)
    plain = solve_relaxation(model, model.start(start), Request(), 1)
    monkeypatch.setattr(model_module, "_LARGE", 1)
    monkeypatch.setattr(model_module, "_RANGE", 64)
    large = [solve_relaxation(model, model.start(start), Request(), t) for t in (1, 3)]
    np.testing.assert_array_equal(large[0].point.x, large[1].point.x)
    np.testing.assert_array_equal(large[0].point.s, large[1].point.s)
    first, second = (relaxed_energy(model, r.point.x) for r in (plain, large[0]))
    assert first == pytest.approx(second, rel=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-12])
@pytest.mark.parametrize("groups", [None, np.arange(60) % 4])
def test_energies_of_states_by_position_are_the_problems_own(dtype, scale, groups):
    rng = np.random.default_rng(3)
    A = (scale * rng.normal(size=(13, 60))).astype(dtype)
    k = 20 if groups is None else np.full(4, 5)
    linear = scale**2 * rng.normal(size=60)
    p = CardinalityQUBO.from_factors(A, linear, k, groups=groups, offset=scale**2 * 0.7)
    model, x = KernelModel.of(p), np.zeros(60, np.uint8)
    x[[4 * t + g for g in range(4) for t in rng.permutation(15)[:5]]] = 1
    assert model.faithful == (dtype is np.float32 and scale == 1)
    assert model.energy(model.start(x)) == pytest.approx(p.energy(x), rel=1e-12)
