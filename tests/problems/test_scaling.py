"""Scaling by powers of two: exact, inverted exactly, and only if needed."""

import numpy as np
import pytest
from problem_cases import all_states

from problems import CardinalityQUBO, InvalidProblemError
from problems.scaling import SAFE, Scaled, check_energies, magnitude


def integer_problem(exponent, factored, dtype=np.float64, offset=0.0, seed=0):
    """Draw small integers times a power of two, so that all energies are exact."""
    rng = np.random.default_rng(seed)
    A, linear = rng.integers(-3, 4, (3, 6)), rng.integers(-9, 10, 6)
    if factored:
        scaled = np.ldexp(A.astype(float), exponent // 2).astype(dtype)
        linear = np.ldexp(linear.astype(float), exponent)
        return CardinalityQUBO.from_factors(scaled, linear, 3, offset=offset)
    Q = np.ldexp((A.T @ A + np.diag(linear)).astype(float), exponent).astype(dtype)
    return CardinalityQUBO(Q, 3, offset=offset)


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("exponent", [-1070, -1060, -300, -70, 70, 300, 1010])
def test_energies_are_those_of_the_problem_times_a_power_of_two(exponent, factored):
    problem = integer_problem(exponent, factored, offset=np.ldexp(5.0, exponent))
    scaled = Scaled.of(problem)
    states = all_states(6)
    expected = integer_problem(0, factored, offset=5.0).energy(states)
    np.testing.assert_array_equal(problem.energy(states), np.ldexp(expected, exponent))
    found = scaled.problem.energy(states)
    np.testing.assert_array_equal(np.ldexp(expected, exponent + scaled.exponent), found)
    assert 0.25 <= max(scaled.problem.peaks) <= 1
    assert [scaled.restore(e) for e in found] == problem.energy(states).tolist()


@pytest.mark.parametrize(
    ("factored", "exponents"), [(True, (-290, -200, 200)), (False, (-149, -140, -100, 100, 120))]
)
def test_float32_is_converted_first(factored, exponents):
    """The powers of two between, and subnormal entries, lie outside float32."""
    states = all_states(6)
    for exponent in exponents:
        problem = integer_problem(exponent, factored, np.float32)
        scaled = Scaled.of(problem)
        assert scaled.problem.dtype == np.float64
        plain = np.ldexp(scaled.problem.energy(states), -scaled.exponent)
        np.testing.assert_array_equal(plain, problem.energy(states))


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("exponent", [-SAFE + 8, -30, 0, 30, SAFE - 8])
def test_ordinary_problems_are_left_alone(exponent, factored):
    problem = integer_problem(exponent, factored)
    scaled = Scaled.of(problem)
    assert scaled.problem is problem
    assert scaled.exponent == 0


def test_nothing_to_scale():
    for problem in (
        CardinalityQUBO(np.zeros((3, 3)), 1),
        CardinalityQUBO.from_factors(np.zeros((0, 3)), np.zeros(3), 1),
        CardinalityQUBO(np.zeros((0, 0)), 0),
    ):
        assert magnitude(problem) is None
        assert Scaled.of(problem).problem is problem


@pytest.mark.parametrize(("A", "linear"), [(1e-200, 3e-30), (1e-10, 1e-300), (1e-40, 0.0)])
def test_the_larger_part_of_a_factored_problem_counts(A, linear):
    problem = CardinalityQUBO.from_factors(np.full((1, 2), A), np.full(2, linear), 1)
    scaled = Scaled.of(problem).problem
    assert 0.25 <= max(scaled.peaks[0] ** 2, scaled.peaks[1]) <= 1
    assert magnitude(problem) % 2 == 0


def test_an_offset_that_would_hide_the_coefficients_is_kept_aside():
    problem = integer_problem(-900, False, offset=1.0)
    scaled = Scaled.of(problem)
    assert scaled.problem.offset == 0
    assert scaled.dropped == 1.0
    assert scaled.restore(1e9) == 1.0
    assert len(set(scaled.problem.energy(all_states(6)))) > 9


def test_a_bound_is_rounded_down():
    scaled = Scaled.of(integer_problem(-1070, False))
    for value in np.random.default_rng(0).normal(size=200):
        bound = scaled.restore_bound(value)
        assert np.ldexp(bound, scaled.exponent) <= value
        assert np.ldexp(np.nextafter(bound, np.inf), scaled.exponent) > value
    assert Scaled.of(integer_problem(1000, False)).restore_bound(-1e300) is None


def test_entries_of_both_ends_in_one_matrix():
    Q = np.array([[1e300, 1e-300], [1e-300, -1e300]])
    scaled = Scaled.of(CardinalityQUBO(Q, 1))
    np.testing.assert_array_equal(np.diag(scaled.problem.Q), np.ldexp([1e300, -1e300], -997))
    assert scaled.problem.Q[0, 1] == 0


def test_energies_that_leave_float64_are_refused_with_the_remedy():
    A = np.full((2, 4), 1e200)
    problem = CardinalityQUBO.from_factors(A, np.zeros(4), 2)
    with pytest.raises(InvalidProblemError, match=r"divide A by 2\*\*(\d+) and linear") as error:
        check_energies(problem)
    root = int(str(error.value).split("A by 2**")[1].split()[0])
    mended = CardinalityQUBO.from_factors(np.ldexp(A, -root), np.zeros(4), 2)
    check_energies(mended)
    assert np.isfinite(mended.energy(np.ones(4)))
    with pytest.raises(InvalidProblemError, match=r"divide Q by 2\*\*3"):
        check_energies(CardinalityQUBO(np.full((2, 2), 1e308), 1))
    check_energies(CardinalityQUBO(np.full((20, 20), 1e300), 1))


def test_groups_and_cardinalities_are_kept():
    problem = CardinalityQUBO(np.full((4, 4), 1e-200), [1, 2], groups=[0, 1, 1, 0])
    scaled = Scaled.of(problem).problem
    np.testing.assert_array_equal(scaled.groups, problem.groups)
    np.testing.assert_array_equal(scaled.cardinalities, problem.cardinalities)


def test_the_matrix_of_float32_factors_is_formed_in_float64():
    A = np.array([[1e-30, 3e-30], [2e-30, 0]], dtype=np.float32)
    problem = CardinalityQUBO.from_factors(A, [0.0, 1e-61], 1)
    exact = A.astype(float)
    np.testing.assert_array_equal(problem.Q, exact.T @ exact + np.diag([0, 1e-61]))
