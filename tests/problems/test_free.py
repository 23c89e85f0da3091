"""QUBOs without a cardinality: every solver and every format against brute force."""

from __future__ import annotations

import dimod
import numpy as np
import pytest
from dwave.samplers import TabuSampler
from hypothesis import given, settings
from problem_cases import SMALL, all_states, any_problems, tolerance

from problems import CardinalityQUBO, FormatError, InvalidProblemError
from problems.formats import FORMATS, read, write
from problems.free import add_partners, free, original_problem, original_states
from solvers import solve


@given(any_problems(max_n=6, min_n=0))
@settings(max_examples=40)
def test_every_state_is_feasible_with_its_own_energy(problem):
    lifted, states = free(problem), all_states(problem.n)
    both = add_partners(states)
    assert lifted.n == 2 * problem.n
    np.testing.assert_array_equal(original_states(both), states)
    assert lifted.is_feasible(both).all()
    assert lifted.is_feasible(all_states(lifted.n)).sum() == 2**problem.n
    # The zeros of the partners may change the order of summation.
    np.testing.assert_allclose(
        lifted.energy(both), problem.energy(states), rtol=0, atol=tolerance(problem)
    )
    assert (lifted.is_factored, lifted.dtype) == (problem.is_factored, problem.dtype)
    again = original_problem(lifted)
    np.testing.assert_array_equal(again.energy(states), problem.energy(states))
    assert again.k == 0


def bqp(n, density, seed):
    """Draw a QUBO like Beasley's: integers within ±100 at a density."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.integers(-100, 101, (n, n)) * (rng.random((n, n)) < density))
    return CardinalityQUBO((upper + upper.T).astype(float), 0)


@pytest.mark.parametrize("solver", ["anneal", "exact", "cpsat", "neal", "tabu", "exhaustive"])
@pytest.mark.parametrize(("n", "density"), [(6, 1.0), (9, 0.3), (10, 1.0)])
def test_solvers_find_the_least_of_all_states(solver, n, density):
    problem = bqp(n, density, seed=n)
    options = {} if solver == "exhaustive" else {"seed": 0}
    solution = solve(
        free(problem), solver, num_reads=20 if solver in ("neal", "tabu") else 1, **options
    )
    assert solution.energy == problem.energy(all_states(n)).min()
    assert problem.energy(original_states(solution.x)) == solution.energy


def test_as_good_as_an_independent_solver():
    problem = bqp(80, 0.1, seed=3)
    model = dimod.BinaryQuadraticModel(problem.Q, "BINARY")
    found = TabuSampler().sample(model, timeout=300, seed=1).first.energy
    assert solve(free(problem), "anneal", time_limit=0.5, seed=0).energy <= found


def test_a_problem_with_a_cardinality_is_not_taken_for_a_free_one():
    for problem in (SMALL, CardinalityQUBO(np.eye(4), [1, 1], groups=[0, 1, 0, 1])):
        with pytest.raises(InvalidProblemError, match="has a cardinality; pass a problem"):
            original_problem(problem)
    with pytest.raises(InvalidProblemError, match="0 and 1 only"):
        add_partners([0, 2])


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "npz"])
@given(problem=any_problems(max_n=4, min_n=1))
@settings(max_examples=15)
def test_files_without_a_cardinality(tmp_path_factory, format, problem):
    path = tmp_path_factory.getbasetemp() / "free"
    write(free(problem), path, format, free=True)
    lifted, states = read(path, format, free=True), all_states(problem.n)
    assert lifted.n == 2 * problem.n
    np.testing.assert_allclose(
        lifted.energy(add_partners(states)), problem.energy(states), rtol=0, atol=tolerance(problem)
    )
    with pytest.raises(FormatError, match="has no cardinality; pass k"):
        read(path, format)
    with pytest.raises(FormatError, match="omit k and groups, or free"):
        read(path, format, k=1, free=True)
    assert read(path, format, k=1).k == 1


@pytest.mark.parametrize("format", [name for name, each in FORMATS.items() if each.cardinality])
def test_a_cardinality_in_the_file_is_not_ignored(tmp_path, format):
    write(SMALL, tmp_path / "own", format)
    with pytest.raises(FormatError, match="contains a cardinality; omit k, groups and free"):
        read(tmp_path / "own", format, free=True)


def test_npz_holds_no_free_problem(tmp_path):
    with pytest.raises(FormatError, match="npz files need a cardinality.* ubqp, mqlib"):
        write(free(SMALL), tmp_path / "free.npz", free=True)
    assert not (tmp_path / "free.npz").exists()
    with pytest.raises(InvalidProblemError, match="has a cardinality; pass a problem"):
        write(SMALL, tmp_path / "free.lp", free=True)


def test_the_names_of_the_first_release_still_work():
    with pytest.warns(DeprecationWarning, match="original_states"):
        from problems.free import own
    assert own is original_states
    with pytest.raises(ImportError):
        from problems.free import nothing  # noqa: F401
