from __future__ import annotations

import time

import numpy as np
import pytest
from brute_force import lowest_energy, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import OptionError, Status, Stop, get, solve
from solvers.base import Request
from solvers.exact.convex import convexify
from solvers.exact.fixing import fix_by_reduced_costs
from solvers.exact.node import FREE, branching_variable
from solvers.exact.relaxation import ConvexProblem, Iterate, relax
from solvers.exact.root import Core, extract_core, solve_root
from solvers.exact.tree import Margins
from solvers.exact.tree_search import TreeSearch


def block(n: int, m: int, seed: int, groups: int = 1) -> CardinalityQUBO:
    """Draw a problem like a pruning block: low-rank curvature, dominant linear terms."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(m, n)) * rng.exponential(size=n) + rng.normal(size=(m, 1))
    labels = np.arange(n) % groups
    k = np.bincount(labels) // 2
    linear = rng.normal(size=n) * np.sqrt(n * m) - 2 * A.T @ (A @ np.full(n, 0.5))
    return CardinalityQUBO.from_factors(A.astype(np.float32), linear, k, groups=labels)


@given(
    n=st.integers(1, 11),
    groups=st.integers(1, 3),
    factored=st.booleans(),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150)
def test_optimum_and_bound_against_brute_force(n, groups, factored, scale, seed):
    problem = random_problem(n, groups, factored, scale, seed)
    best = lowest_energy(problem)
    answer = solve(problem, "exact", seed=seed)
    assert answer.energy == pytest.approx(best, rel=1e-9, abs=1e-9 * scale)
    assert answer.status is Status.OPTIMAL
    assert answer.bound <= best
    assert answer.bound == pytest.approx(best, rel=1e-8, abs=1e-8 * scale)


@given(n=st.integers(12, 18), groups=st.integers(1, 3), seed=st.integers(0, 10_000))
@settings(max_examples=40)
def test_blocks_of_the_family_against_enumeration(n, groups, seed):
    problem = block(n, 6, seed, groups)
    expected = solve(problem, "exhaustive")
    answer = solve(problem, "exact", seed=0)
    assert answer.is_optimal
    assert answer.energy == pytest.approx(expected.energy, rel=1e-10)


@pytest.mark.parametrize("solver", ["exact", "anneal"])
def test_rank_one_without_linear_terms(solver):
    """The relaxation ends where all gradients vanish."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 15))
        A = rng.normal(size=(1, n)) if seed % 3 else rng.integers(-2, 3, (1, n)) * 1.0
        problem = CardinalityQUBO.from_factors(A, np.zeros(n), int(rng.integers(1, n)))
        answer = solve(problem, solver, seed=0)
        if solver == "exact":
            assert answer.is_optimal
            best = solve(problem, "exhaustive").energy
            assert answer.energy == pytest.approx(best, abs=1e-9 * (A**2).sum())


def test_a_node_without_numbers_is_branched_on():
    """With NaN, the first free variable is chosen: no write outside the arrays."""
    n, nan = 4, np.full(4, np.nan)
    problem = ConvexProblem(np.diag(nan), nan, np.zeros(n, np.int64), np.array([2]))
    iterate, index = Iterate(nan, nan, np.zeros(1)), np.arange(n)
    state = np.array([1, FREE, 0, FREE], np.int8)
    assert branching_variable(problem, iterate, state, index) == 1
    state[1] = 0
    assert branching_variable(problem, iterate, state, index) == 3


def test_a_tree_without_numbers_ends_and_proves_nothing():
    n = 6
    P, linear, group = np.full((n, n), np.nan), np.full(n, np.nan), np.zeros(n, np.int64)
    problem = ConvexProblem(P, linear, group, np.array([3]))
    core = Core(problem, 0.0, np.arange(n), np.zeros(n, np.uint8), feasible=True)
    tree = TreeSearch(core, np.full(n, 0.5), -np.inf, 1.0, Margins(1e-12, 0.0, 0.0))
    tree.explore(10_000)
    assert tree.open == 0
    assert tree.found == 0
    assert tree.nodes >= 20  # all C(6, 3) leaves: not one was cut off


@pytest.mark.parametrize("curvature", [1e-300, 1e-307, 1e-310])
def test_steps_that_leave_floating_point_are_not_taken(curvature):
    """Curvature that is negligible relative to the slope: the bound still holds."""
    rng = np.random.default_rng(0)
    n, k = 8, np.array([4])
    P, linear = np.diag(np.full(n, curvature)), rng.normal(size=n)
    problem = ConvexProblem(P, linear, np.zeros(n, np.int64), k)
    iterate = Iterate(np.full(n, 0.5), np.empty(n), np.empty(1))
    bound = relax(problem, iterate, 1e-12, np.inf, 1 << 40)
    assert np.isfinite(iterate.y).all()
    assert np.sort(linear)[:4].sum() - 10 < bound <= np.sort(linear)[:4].sum() + 1e-12


@pytest.mark.parametrize("k", [1, 2, 38, 39])
def test_extreme_cardinalities(k):
    rng = np.random.default_rng(k)
    A = rng.normal(size=(10, 40))
    problem = CardinalityQUBO.from_factors(A, rng.normal(size=40), k)
    assert solve(problem, "exact").is_optimal
    # With one or two ones (or zeros), all states can be enumerated.
    few = np.eye(40, dtype=np.uint8)
    if k in (2, 38):
        few = np.array([few[i] | few[j] for i in range(40) for j in range(i)])
    states = few if k <= 2 else 1 - few
    assert solve(problem, "exact").energy == pytest.approx(problem.energy(states).min())


@pytest.mark.parametrize("value", [-1.0, 0.0, 2.5])
def test_equal_coefficients_need_no_search(value):
    """Every state ties: pruning without a tolerance would visit all C(60, 30) of them."""
    problem = CardinalityQUBO(np.full((60, 60), value), 30)
    answer = solve(problem, "exact")
    assert answer.is_optimal
    assert answer.energy == pytest.approx(value * 900)
    diagonal = CardinalityQUBO(np.diag(np.full(60, value)), 30)
    assert solve(diagonal, "exact").energy == pytest.approx(30 * value)


def test_dense_and_factored_agree():
    factored = block(60, 20, seed=3)
    dense = CardinalityQUBO(factored.Q.astype(np.float64), factored.k)
    answers = solve(factored, "exact", seed=0), solve(dense, "exact", seed=0)
    assert all(answer.is_optimal for answer in answers)
    assert answers[0].energy == pytest.approx(answers[1].energy, rel=1e-5)  # Q is float32


@given(seed=st.integers(0, 10_000), factored=st.booleans(), groups=st.integers(1, 3))
@settings(max_examples=60)
def test_reformulation_keeps_the_energies_of_feasible_states(seed, factored, groups):
    problem = random_problem(9, groups, factored, 1.0, seed)
    convex = convexify(problem, Request())
    rng = np.random.default_rng(seed)
    for _ in range(5):
        x = np.zeros(9, dtype=np.uint8)
        for g, k in enumerate(problem.cardinalities):
            x[rng.choice(np.flatnonzero(problem.groups == g), k, replace=False)] = 1
        y = x.astype(np.float64)
        value = convex.value(y, convex.gradient(y))
        assert abs(value + problem.offset - problem.energy(x)) <= convex.slack + convex.tolerance
    assert np.linalg.eigvalsh(convex.block(np.arange(9))).min() > -1e-12 * convex.curvature


@given(seed=st.integers(0, 10_000), n=st.integers(2, 12), groups=st.integers(1, 3))
@settings(max_examples=100)
def test_relaxation_reaches_the_minimum(seed, n, groups):
    """The bound meets the value at the point it stops at, which only the minimum allows."""
    rng = np.random.default_rng(seed)
    B = rng.normal(size=(n, n))
    P, linear = B @ B.T + 1e-3 * np.eye(n), rng.normal(size=n) * 3
    labels = rng.integers(0, groups, n)
    start = rng.integers(0, 2, n).astype(np.float64)
    k = np.bincount(labels, start, groups).astype(np.int64)
    iterate = Iterate(start.copy(), np.empty(n), np.empty(groups))
    bound = relax(ConvexProblem(P, linear, labels, k), iterate, 1e-12, np.inf, 1 << 40)
    y, gradient, _ = iterate
    value = y @ P @ y + linear @ y
    assert ((y >= 0) & (y <= 1)).all()
    np.testing.assert_allclose(np.bincount(labels, y, groups), k, atol=1e-9)
    assert value <= start @ P @ start + linear @ start + 1e-9
    assert bound == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(gradient, 2 * P @ y + linear, atol=1e-9)


def test_root_bounds_hold_and_fixed_variables_are_right():
    for seed in range(20):
        problem = block(16, 8, seed, groups=1 + seed % 2)
        best = solve(problem, "exhaustive")
        convex = convexify(problem, Request())
        k = problem.cardinalities
        root = solve_root(convex, k, best.x, Request())
        assert root.bound <= best.energy
        core = extract_core(convex, root, k, best.energy + convex.tolerance)
        fixed = np.setdiff1d(np.arange(problem.n), core.index)
        np.testing.assert_array_equal(core.x[fixed], best.x[fixed])


def test_reduction_keeps_an_optimum():
    for seed in range(20):
        problem = block(16, 8, seed, groups=1 + seed % 2)
        best = solve(problem, "exhaustive")
        reduced = fix_by_reduced_costs(problem, Request(seed=0))
        assert reduced.bound <= best.energy <= problem.energy(reduced.x)
        np.testing.assert_array_equal(reduced.rest.restore(reduced.x[reduced.rest.free]), reduced.x)
        if reduced.rest.problem.n:
            rest = solve(reduced.rest.problem, "exhaustive")
            assert rest.energy == pytest.approx(best.energy, rel=1e-9)


def test_time_limit_gives_the_incumbent_and_a_valid_bound():
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(300, 300))
    problem = CardinalityQUBO(Q + Q.T, 150)
    start = np.repeat([1, 0], 150)
    solve(block(20, 5, 0), "exact")  # compiled
    answer = solve(problem, "exact", time_limit=0.5, initial_state=start, seed=0)
    assert answer.stop is Stop.TIME_LIMIT
    assert answer.status is Status.FEASIBLE
    assert answer.energy < problem.energy(start)
    assert answer.bound is None or answer.bound < answer.energy


def test_node_limit_leaves_a_bound_below_the_optimum():
    problem = block(120, 30, seed=5)
    optimal = solve(problem, "exact", seed=0)
    assert optimal.is_optimal
    assert optimal.info["nodes"] > 3
    cut = solve(problem, "exact", seed=0, max_nodes=1)
    root = solve(problem, "exact", seed=0, max_nodes=0)
    for answer in (cut, root):
        assert answer.stop is Stop.ITERATION_LIMIT
        assert answer.status is Status.FEASIBLE
        assert answer.bound <= optimal.energy <= answer.energy
    assert (root.info["nodes"], cut.info["nodes"]) == (0, 1)
    assert root.bound <= cut.bound


def test_gap_stops_early_without_a_claim():
    problem = block(120, 30, seed=5)
    answer = solve(problem, "exact", seed=0, gap=0.05)
    assert answer.status is Status.FEASIBLE
    assert answer.stop is Stop.CONVERGED
    assert answer.gap <= 0.05 + 1e-9


def test_callback_sees_falling_energies_and_stops():
    problem = block(100, 30, seed=2)
    seen: list[float] = []
    answer = solve(problem, "exact", seed=0, callback=lambda _, energy: seen.append(energy))
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(answer.energy)
    stopped = solve(problem, "exact", seed=0, callback=lambda *_: True)
    assert stopped.stop is Stop.INTERRUPTED
    assert stopped.status is Status.FEASIBLE


@pytest.mark.parametrize("option", [{"gap": -1.0}, {"gap": np.nan}, {"max_nodes": -1}])
def test_bad_options_are_refused(option):
    with pytest.raises(OptionError):
        solve(block(10, 3, 0), "exact", **option)


@pytest.mark.parametrize("solver", ["exact", "cpsat"])
def test_time_limit_binds_in_the_root_of_a_large_dense_problem(solver):
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(800, 800))
    problem = CardinalityQUBO(Q + Q.T, 400)
    get(solver).warm_up()
    begin = time.perf_counter()
    answer = solve(problem, solver, time_limit=0.5, seed=0)
    assert time.perf_counter() - begin < 20
    assert answer.stop is Stop.TIME_LIMIT
    assert answer.bound <= answer.energy
