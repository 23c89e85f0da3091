"""Small problems drawn by hypothesis, and naive reference implementations."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from problems import CardinalityQUBO
from problems.formats import FORMATS

#: Three variables in two groups, with an offset.
SMALL = CardinalityQUBO(
    [[1.0, -2.0, 0.5], [-2.0, 3.0, 0.0], [0.5, 0.0, -1.0]], [1, 1], groups=[0, 0, 1], offset=0.25
)

#: Coefficients of ordinary size; -0.0 and ties come up often.
coefficients = st.floats(-100, 100, width=32).map(lambda v: round(v, 3))


@st.composite
def constraints(draw, n, max_groups=3):
    """Draw (k, groups) for n variables: one group of all, or several."""
    count = draw(st.integers(1, max_groups))
    if count == 1:
        return draw(st.integers(0, n)), None
    groups = draw(hnp.arrays(np.int64, n, elements=st.integers(0, count - 1)))
    sizes = np.bincount(groups, minlength=count)
    return [draw(st.integers(0, int(size))) for size in sizes], groups


@st.composite
def dense_problems(draw, max_n=8, min_n=1, max_groups=3, dtype=np.float64):
    n = draw(st.integers(min_n, max_n))
    upper = np.triu(draw(hnp.arrays(dtype, (n, n), elements=coefficients)))
    k, groups = draw(constraints(n, max_groups))
    offset = draw(coefficients)
    return CardinalityQUBO(upper + np.triu(upper, 1).T, k, groups=groups, offset=offset)


@st.composite
def factored_problems(draw, max_n=8, min_n=1, max_m=5, max_groups=3, dtype=np.float64):
    n, m = draw(st.integers(min_n, max_n)), draw(st.integers(0, max_m))
    A = draw(hnp.arrays(dtype, (m, n), elements=coefficients.map(lambda v: v / 10)))
    linear = draw(hnp.arrays(np.float64, n, elements=coefficients))
    k, groups = draw(constraints(n, max_groups))
    return CardinalityQUBO.from_factors(A, linear, k, groups=groups, offset=draw(coefficients))


def any_problems(**kinds):
    """Dense or factored problems."""
    factored = {key: value for key, value in kinds.items() if key != "max_m"}
    return st.one_of(dense_problems(**factored), factored_problems(**kinds))


def reading_arguments(problem, format):
    """Arguments that a reader of the format needs: the cardinality, or nothing."""
    if FORMATS[format].cardinality:
        return {}
    return {"k": problem.cardinalities, "groups": problem.groups}


def matrix(problem):
    """Q in float64, formed from the problem's coefficients."""
    if problem.is_factored:
        A = problem.A.astype(np.float64)
        return A.T @ A + np.diag(problem.linear)
    return problem.Q.astype(np.float64)


def naive_energy(problem, x):
    """Evaluate Σ_i Σ_j x_i Q_ij x_j + offset one term at a time."""
    Q = matrix(problem)
    total = problem.offset
    for i in range(problem.n):
        for j in range(problem.n):
            total += float(x[i]) * float(Q[i, j]) * float(x[j])
    return total


def all_states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)), dtype=np.uint8).reshape(2**n, n)


def feasible_states(problem):
    states = all_states(problem.n)
    return states[problem.is_feasible(states)]


def tolerance(problem):
    """Rounding error of float64: some ulps of the sum of all magnitudes."""
    return 1e-12 * (1 + float(np.abs(matrix(problem)).sum()) + abs(problem.offset))


def assert_same_problem(first, second):
    """Assert the same n, k for each state, and energies equal on all of {0,1}ⁿ."""
    assert first.n == second.n
    states = all_states(first.n)
    np.testing.assert_array_equal(first.is_feasible(states), second.is_feasible(states))
    assert first.k == second.k
    np.testing.assert_allclose(
        first.energy(states), second.energy(states), rtol=0, atol=tolerance(first)
    )
