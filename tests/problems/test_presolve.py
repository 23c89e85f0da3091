"""Presolve against brute force: every optimum survives, and energies stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_cases import any_problems, feasible_states, tolerance

import problems.presolve
from problems import CardinalityQUBO, InvalidProblemError
from problems.presolve import presolve, restrict

few = settings(max_examples=80)


def exact(problem, strength):
    """Scale the couplings down, so that something is fixed, and round so that no sum does."""
    constraint = {"groups": problem.groups, "offset": float(np.round(problem.offset))}
    if problem.is_factored:
        A, linear = np.round(16 * strength * problem.A) / 16, np.round(problem.linear)
        return CardinalityQUBO.from_factors(A, linear, problem.cardinalities, **constraint)
    Q = np.round(256 * strength * problem.Q) / 256
    Q[np.diag_indices(problem.n)] = np.round(problem.diagonal)
    return CardinalityQUBO(Q, problem.cardinalities, **constraint)


@few
@given(any_problems(), st.sampled_from([1.0, 0.1, 0.01, 0.0]), st.sampled_from([0, 256]))
def test_the_optima_are_the_restored_optima(problem, strength, pairs_up_to):
    problem = exact(problem, strength)
    presolved = presolve(problem, pairs_up_to=pairs_up_to)
    states = feasible_states(problem)
    energies = problem.energy(states)
    optima = states[energies == energies.min()]
    is_free = presolved.fixed < 0
    # Every optimum has the fixed values …
    assert (optima[:, ~is_free] == presolved.fixed[~is_free]).all()
    # … and every feasible state of the reduced problem restores to one of equal energy.
    left = feasible_states(presolved.problem)
    assert len(left)
    restored = presolved.restore(left)
    assert problem.is_feasible(restored).all()
    np.testing.assert_array_equal(presolved.problem.energy(left), problem.energy(restored))
    assert problem.energy(restored).min() == energies.min()


@few
@given(any_problems())
def test_pairs_fix_at_least_as_much_as_fields(problem):
    problem = exact(problem, 0.1)
    fields, pairs = presolve(problem, pairs_up_to=0).fixed, presolve(problem).fixed
    assert (pairs[fields >= 0] == fields[fields >= 0]).all()


@few
@given(any_problems(), st.data())
def test_restricting_keeps_energies(problem, data):
    x = data.draw(st.sampled_from(list(feasible_states(problem))))
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x))))
    reduced = restrict(problem, chosen & (x == 0), chosen & (x == 1))
    assert reduced.n == (~chosen).sum()
    assert reduced.is_feasible(x[~chosen])
    assert reduced.energy(x[~chosen]) == pytest.approx(problem.energy(x), abs=tolerance(problem))


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_uncoupled_problem_is_solved(factored, dtype):
    linear = np.array([3.0, -1.0, 2.0, 0.0, 5.0, -2.0])
    groups = [0, 0, 0, 1, 1, 1]
    if factored:
        A = np.zeros((2, 6), dtype=dtype)
        problem = CardinalityQUBO.from_factors(A, linear, [1, 2], groups=groups)
    else:
        problem = CardinalityQUBO(np.diag(linear).astype(dtype), [1, 2], groups=groups)
    presolved = presolve(problem, pairs_up_to=0)
    np.testing.assert_array_equal(presolved.fixed, [0, 1, 0, 1, 0, 1])
    assert presolved.problem.n == 0
    np.testing.assert_array_equal(presolved.restore(np.zeros(0)), [0, 1, 0, 1, 0, 1])
    assert presolved.problem.energy(np.zeros(0)) == -3.0


def test_ties_are_left_open():
    presolved = presolve(CardinalityQUBO(np.eye(4), 2))
    assert (presolved.fixed == -1).all()
    assert presolved.problem.n == 4


def test_pairs_fix_more_than_fields():
    # Rows 0 and 1 swing by 20 with the second group, but together: the field of 1 is always
    # higher by 1.
    Q = np.zeros((4, 4))
    Q[:2, 2:], Q[2:, :2] = [5.0, -5.0], [[5.0, 5.0], [-5.0, -5.0]]
    Q[np.diag_indices(4)] = [0.0, 1.0, -20.0, 0.0]  # the second group ties
    problem = CardinalityQUBO(Q, [1, 1], groups=[0, 0, 1, 1])
    assert presolve(problem, pairs_up_to=0).fixed.tolist() == [-1, -1, -1, -1]
    assert presolve(problem).fixed.tolist() == [1, 0, -1, -1]


def test_groups_that_leave_no_choice_are_fixed_first():
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(6, 6))
    problem = CardinalityQUBO(Q + Q.T, [2, 0, 1], groups=[0, 0, 1, 1, 2, 2])
    assert presolve(problem).fixed[:4].tolist() == [1, 1, 0, 0]


def test_row_chunks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(1)
    A, linear = 0.05 * rng.normal(size=(5, 30)), rng.normal(size=30)
    problem = CardinalityQUBO.from_factors(A, linear, [5, 9], groups=np.arange(30) % 2)
    whole = presolve(problem).fixed
    monkeypatch.setattr(problems.presolve, "_CHUNK", 70)
    np.testing.assert_array_equal(presolve(problem).fixed, whole)
    assert (whole >= 0).any()


def test_states_go_both_ways():
    rng = np.random.default_rng(2)
    Q = 0.1 * rng.normal(size=(12, 12))
    problem = CardinalityQUBO(Q + Q.T + np.diag(rng.normal(size=12)), 6)
    presolved = presolve(problem)
    assert 0 < presolved.problem.n < 12
    starts = rng.permuted(np.tile(np.arange(12) < 6, (5, 1)), axis=1).astype(np.uint8)
    reduced = presolved.reduce(starts)
    assert presolved.problem.is_feasible(reduced).all()
    assert problem.is_feasible(presolved.restore(reduced)).all()
    assert presolved.restore(reduced[0]).shape == (12,)
    with pytest.raises(InvalidProblemError, match="state has shape"):
        presolved.restore(np.zeros(12))


@pytest.mark.parametrize("exponent", [-530, -534, -536])
def test_rounding_of_subnormal_products_fixes_nothing_wrong(exponent):
    """Factors whose products have few bits: the optimum is known from their multiples."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(3, 9)), int(rng.integers(1, 6))
        A, linear, k = rng.normal(size=(m, n)), 2 * rng.normal(size=n), int(rng.integers(1, n))
        scaled = np.ldexp(A, exponent), np.ldexp(linear, 2 * exponent)
        # The remaining linear terms at that scale.
        problem = CardinalityQUBO.from_factors(A, np.ldexp(scaled[1], -2 * exponent), k)
        states = feasible_states(problem)
        best = states[np.argmin(problem.energy(states))]
        fixed = presolve(CardinalityQUBO.from_factors(*scaled, k)).fixed
        assert ((fixed < 0) | (fixed == best)).all()


def test_energies_that_leave_float64_are_refused():
    with pytest.raises(InvalidProblemError, match="divide A by"):
        presolve(CardinalityQUBO.from_factors(np.full((2, 3), 1e200), np.zeros(3), 1))
