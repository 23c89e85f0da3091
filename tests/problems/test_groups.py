"""Groups of a problem: members, sizes, forced variables, and the minimum of a linear cost."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from problem_cases import any_problems, factored_problems, feasible_states, matrix

from problems import CardinalityQUBO
from problems.read_only import read_only_problem

few = settings(max_examples=60)

#: Costs with many ties.
costs = st.integers(-3, 3).map(float)


@few
@given(any_problems())
def test_members_and_sizes_follow_the_labels(problem):
    assert len(problem.group_members) == problem.num_groups
    for g, members in enumerate(problem.group_members):
        np.testing.assert_array_equal(members, np.flatnonzero(problem.groups == g))
        assert problem.group_sizes[g] == len(members)


@few
@given(any_problems())
def test_forced_variables_are_those_with_one_value_in_all_feasible_states(problem):
    states = feasible_states(problem)
    zeros, ones = problem.forced_variables()
    np.testing.assert_array_equal(zeros, (states == 0).all(axis=0))
    np.testing.assert_array_equal(ones, (states == 1).all(axis=0))


@few
@given(any_problems(), st.data())
def test_a_linear_cost_is_minimised(problem, data):
    cost, tie = (data.draw(hnp.arrays(float, problem.n, elements=costs)) for _ in range(2))
    x, states = problem.minimise_linear(cost, tie), feasible_states(problem)
    assert problem.is_feasible(x)
    assert x @ cost == (states @ cost).min()
    best = states[states @ cost == x @ cost]
    assert x @ tie == (best @ tie).min()


def test_equal_costs_take_the_lower_index():
    problem = CardinalityQUBO(np.eye(4), [1, 1], groups=[0, 1, 0, 1])
    np.testing.assert_array_equal(problem.minimise_linear(np.zeros(4)), [1, 1, 0, 0])


@few
@given(factored_problems(dtype=np.float32))
def test_the_float64_matrix_is_multiplied_out_in_float64(problem):
    Q = problem.float64_matrix()
    assert Q.dtype == np.float64
    assert Q.flags.c_contiguous
    scale = float(np.abs(matrix(problem)).sum())
    np.testing.assert_allclose(Q, matrix(problem), rtol=0, atol=1e-14 * (1 + scale))


def test_derived_arrays_are_read_only_in_every_copy():
    problem = CardinalityQUBO(np.eye(3), [1, 1], groups=[0, 1, 1])
    problem.group_members  # noqa: B018 - computed before it is copied
    for copy in (problem, pickle.loads(pickle.dumps(problem)), read_only_problem(problem)):
        for array in (copy.group_sizes, *copy.group_members):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 9


def test_members_of_an_empty_group_can_be_permuted():
    problem = CardinalityQUBO(np.eye(2), [1, 0], groups=[0, 0])
    drawn = [np.random.default_rng(0).permutation(part) for part in problem.group_members]
    assert sorted(map(len, drawn)) == [0, 2]
