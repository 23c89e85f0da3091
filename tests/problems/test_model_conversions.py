"""Models of dimod and qiskit-optimization: round trips, and their own energies."""

from __future__ import annotations

import dimod
import numpy as np
import pytest
from hypothesis import given, settings
from problem_cases import (
    SMALL,
    all_states,
    any_problems,
    assert_same_problem,
    dense_problems,
    feasible_states,
)

from problems import FormatError
from problems.formats.bqm import from_bqm, from_cqm, to_bqm, to_cqm
from problems.formats.quadratic_program import from_quadratic_program, to_quadratic_program

few = settings(max_examples=30)


@few
@given(any_problems())
def test_bqm_round_trip(problem):
    bqm = to_bqm(problem)
    again = from_bqm(bqm, problem.cardinalities, problem.groups)
    assert_same_problem(problem, again)
    for x in all_states(problem.n)[::5]:
        sample = dict(enumerate(x.tolist()))
        assert bqm.energy(sample) == pytest.approx(problem.energy(x), abs=1e-9)


@few
@given(any_problems(max_n=6))
def test_cqm_round_trip_and_its_own_energies(problem):
    cqm = to_cqm(problem)
    assert_same_problem(problem, from_cqm(cqm))
    states = all_states(problem.n)
    feasible = [cqm.check_feasible(dict(enumerate(x.tolist()))) for x in states]
    np.testing.assert_array_equal(feasible, problem.is_feasible(states))


@few
@given(any_problems(max_n=6))
def test_quadratic_program_round_trip_and_its_own_energies(problem):
    program = to_quadratic_program(problem)
    assert_same_problem(problem, from_quadratic_program(program))
    for x in all_states(problem.n)[::5]:
        assert program.objective.evaluate(x) == pytest.approx(problem.energy(x), abs=1e-9)
        assert program.is_feasible(x) == problem.is_feasible(x)


@few
@given(dense_problems(max_n=5, max_groups=1))
def test_spin_models_are_read_as_binaries(problem):
    spin = to_bqm(problem).change_vartype("SPIN", inplace=False)
    np.testing.assert_allclose(from_bqm(spin, problem.k).Q, problem.Q, atol=1e-9)


def test_labels_choose_the_order():
    by_number = dimod.BQM({"x10": 10.0, "x2": 2.0, "x1": 1.0}, {}, 0.0, "BINARY")
    np.testing.assert_array_equal(from_bqm(by_number, 1).diagonal, [1.0, 2.0, 10.0])
    by_hand = dimod.BQM({"b": 1.0, "a": 2.0}, {}, 0.0, "BINARY")
    np.testing.assert_array_equal(from_bqm(by_hand, 1).diagonal, [1.0, 2.0])
    integers = dimod.BQM({2: 1.0, 0: 2.0}, {}, 0.0, "BINARY")
    np.testing.assert_array_equal(from_bqm(integers, 1).diagonal, [2.0, 1.0])
    mixed = dimod.BQM({"b": 1.0, 0: 2.0}, {}, 0.0, "BINARY")
    np.testing.assert_array_equal(from_bqm(mixed, 1).diagonal, [1.0, 2.0])
    assert set(to_bqm(SMALL, "abc").variables) == set("abc")


def test_integers_between_0_and_1_are_binaries():
    cqm = dimod.CQM()
    x, y = dimod.Integer("x", upper_bound=1), dimod.Integer("y", upper_bound=1)
    cqm.set_objective(x * x + 2 * x * y)
    cqm.add_constraint(x + y == 1)
    assert from_cqm(cqm).energy([1, 1]) == 3


def test_a_maximising_program_is_turned():
    program = to_quadratic_program(SMALL)
    turned = to_quadratic_program(SMALL)
    objective = program.objective
    turned.maximize(objective.constant, objective.linear.to_array(), objective.quadratic.to_array())
    states = feasible_states(SMALL)
    np.testing.assert_allclose(from_quadratic_program(turned).energy(states), -SMALL.energy(states))


def cqm_with(*constraints, kind=dimod.Binary):
    cqm = dimod.CQM()
    x, y = kind("x"), kind("y")
    cqm.set_objective(x + y)
    for build in constraints:
        cqm.add_constraint(build(x, y))
    return cqm


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([], "has no cardinality; pass k"),
        ([lambda x, y: x + y <= 1], "is not a hard linear equality"),
        ([lambda x, y: x * y == 1], "is not a hard linear equality"),
        ([lambda x, y: x + 2 * y == 1], r"coefficients \[1.0, 2.0\]; the coefficients"),
        ([lambda x, y: 2 * x + 2 * y == 1], "requires a count of 0.5; it must be an integer"),
        ([lambda x, y: x + y == 3], r"k is 3; it must lie in \[0, 2\]"),
        ([lambda x, y: x + y == -1], r"k is -1; it must lie in \[0, 2\]"),
        ([lambda x, y: x + y == 1, lambda x, y: x == 1], "already in another.*groups must be"),
        ([lambda x, y: y - x + x == 1], r"variable 0 \(counted from 0\) is not in any row"),
    ],
)
def test_rows_that_are_not_a_cardinality(constraints, message):
    with pytest.raises(FormatError, match=message):
        from_cqm(cqm_with(*constraints))


def test_models_over_other_variables():
    with pytest.raises(FormatError, match=r"variable 'x' is SPIN in \[-1, 1\]; all must be binary"):
        from_cqm(cqm_with(lambda x, y: x + y == 0, kind=dimod.Spin))
    with pytest.raises(FormatError, match="variable 'x' is INTEGER"):
        from_cqm(cqm_with(lambda x, y: x + y == 0, kind=dimod.Integer))
    program = to_quadratic_program(SMALL)
    program.integer_var(0, 2, "z")
    with pytest.raises(FormatError, match=r"'z' is INTEGER in \[0, 2\]; all must be binary"):
        from_quadratic_program(program)
    program = to_quadratic_program(SMALL)
    program.quadratic_constraint({}, {("x0", "x1"): 1}, "==", 1)
    with pytest.raises(FormatError, match="has quadratic constraints"):
        from_quadratic_program(program)
    program = to_quadratic_program(SMALL)
    program.linear_constraint({"x0": 1}, "<=", 1, "c")
    with pytest.raises(FormatError, match="constraint 'c' is an inequality"):
        from_quadratic_program(program)


@pytest.mark.parametrize("bound", ["x = 1", "x >= 1", "x <= 0"])
def test_a_model_that_holds_a_binary_fixed(tmp_path, bound):
    """dimod's LP reader keeps such bounds in the model."""
    path = tmp_path / "fixed.lp"
    path.write_text(
        f"Minimize\n o: 5 x + y\nSubject To\n c: x + y = 1\nBounds\n {bound}\nBinary\n x y\nEnd\n"
    )
    with pytest.raises(FormatError, match=r"'x' is BINARY in \[(1, 1|0, 0)\]; all must be binary"):
        from_cqm(dimod.lp.load(str(path)))


def test_a_soft_constraint_is_not_a_cardinality():
    cqm = cqm_with()
    cqm.add_constraint([("x", 1), ("y", 1)], "==", 1, weight=2.0)
    with pytest.raises(FormatError, match="is not a hard linear equality"):
        from_cqm(cqm)
