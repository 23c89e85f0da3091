"""Solvers of problems with a budget against each other's proofs."""

import time

import numpy as np
import pytest

from problems import BudgetQUBO
from solvers import UnsupportedError, get, solve

EXACT = ["exact", "cpsat", "scip"]


def heads_and_neurons(n, seed, kinds=(64, 6), rows=256):
    """Per-sample gradients of gates, correlated by a few common directions."""
    rng = np.random.default_rng(seed)
    scale = np.exp(0.5 * rng.normal(size=n))
    common = rng.normal(size=(rows, 4)) @ rng.normal(size=(4, n)) / 2
    A = (rng.normal(size=(rows, n)) + common) * scale / np.sqrt(rows)
    costs = np.where(np.arange(n) < n // 4, *kinds)
    groups = np.arange(n) % 6
    most = np.bincount(groups) - 1
    return BudgetQUBO.from_factors(A, np.zeros(n), costs, costs.sum() / 2, groups=groups, most=most)


def _proofs():
    for name in EXACT:
        yield name, 24, (64, 6)
        # The tree of "exact" is in Python.
        slow = [pytest.mark.slow] if name == "exact" else []
        yield pytest.param(name, 40, (64, 6), marks=slow)
        yield name, 40, (1, 1)


@pytest.mark.parametrize(("name", "n", "kinds"), _proofs())
def test_anneal_meets_the_proofs(name, n, kinds):
    if missing := get(name).missing():
        pytest.skip(f"needs {missing}")
    problem = heads_and_neurons(n, 1, kinds)
    # A proof of "exact" is not cut off by a busy machine.
    proof = solve(problem, name, seed=0, time_limit=None if name == "exact" else 60)
    # The integer objective of CP-SAT may leave a gap of its rounding.
    rounding = proof.info.get("rounding", 0.0) + proof.info.get("lowering", 0.0)
    assert proof.is_optimal or name == "cpsat"
    assert proof.energy - proof.bound <= rounding + 2 * proof.info["tolerance"]
    found = solve(problem, "anneal", seed=0)
    assert found.energy == pytest.approx(proof.energy, rel=1e-6)
    assert problem.is_feasible(found.x)


def test_72_heads_are_proved():
    problem = heads_and_neurons(72, 2, (1, 1), rows=1024)
    proof = solve(problem, "exact", seed=0, time_limit=60)
    assert proof.is_optimal
    assert solve(problem, "anneal", seed=3).energy == pytest.approx(proof.energy, rel=1e-6)


def test_a_limited_search_is_bounded_and_not_proved():
    problem = heads_and_neurons(72, 3)
    cut = solve(problem, "exact", seed=0, max_nodes=1)
    whole = solve(problem, "exact", seed=0, time_limit=60)
    assert whole.is_optimal
    assert not cut.is_optimal
    assert cut.bound <= whole.energy <= cut.energy


def test_a_large_problem_is_bounded_from_its_gradient():
    problem = heads_and_neurons(1200, 4, rows=64)
    solution = solve(problem, "exact", seed=0, time_limit=5)
    assert problem.is_feasible(solution.x)
    assert solution.bound is None or solution.bound <= solution.energy
    start = solve(problem, "diagonal").x
    again = solve(problem, "anneal", seed=0, time_limit=1, initial_state=start)
    assert again.energy <= problem.energy(start)


def test_the_first_search_of_a_proof_keeps_to_the_time_limit():
    problem = heads_and_neurons(2000, 9, rows=128)
    solve(heads_and_neurons(1200, 9, rows=64), "exact", time_limit=0.1)  # compiles the kernels
    seconds = []
    for limit in (0.1, None):
        begin = time.process_time()
        solution = solve(problem, "exact", seed=0, time_limit=limit, max_nodes=0)
        seconds.append(time.process_time() - begin)
        assert problem.is_feasible(solution.x)
    assert seconds[0] < 0.7 * seconds[1]


def test_fixed_counts_agree_with_a_cardinality():
    from problems import CardinalityQUBO

    rng = np.random.default_rng(5)
    Q = rng.normal(size=(14, 14))
    plain = CardinalityQUBO(Q + Q.T, [3, 4], groups=np.arange(14) % 2)
    want = solve(plain, "exact", seed=0).energy
    for name in ("exact", "exhaustive", "anneal"):
        found = solve(BudgetQUBO.from_cardinality(plain), name, seed=0)
        assert found.energy == pytest.approx(want, abs=1e-9)


def test_a_solver_without_budgets_names_those_with():
    problem = heads_and_neurons(8, 0)
    with pytest.raises(UnsupportedError, match=r"can't hold a budget; choose one that can: anneal"):
        solve(problem, "qaoa")


def test_several_problems_with_different_constraints():
    budget = heads_and_neurons(12, 6)
    other = heads_and_neurons(12, 7)
    found = solve([budget, other], "anneal", seed=0)
    assert [p.is_feasible(s.x) for p, s in zip([budget, other], found, strict=True)] == [True] * 2


def test_penalised_samples_are_repaired():
    problem = heads_and_neurons(24, 8)
    pytest.importorskip("dwave.samplers")
    best = solve(problem, "exact", seed=0).energy
    found = solve(problem, "tabu", seed=0, num_reads=5)
    assert found.info["penalty"]["policy"] == "unbalanced"
    assert found.feasible.all()
    assert best - 1e-9 <= found.energy <= 1.2 * best
