"""CP-SAT against brute force: answers, proofs, and bounds that hold for the real problem."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import lowest_energy, random_problem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import OptionError, Status, Stop, solve
from solvers.base import Request
from solvers.cpsat.model import largest
from solvers.cpsat.products import products
from solvers.cpsat.squares import squares
from solvers.diagonal import Diagonal


@settings(max_examples=60)
@example(4020, 2, 1e-12, False, 1, False, {"formulation": "products"})  # the optimum is 0
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 9),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    factored=st.booleans(),
    groups=st.sampled_from([1, 1, 3]),
    relax=st.booleans(),
    options=st.sampled_from(
        [
            {"formulation": "products"},
            {"formulation": "products", "rlt": True},
            {"formulation": "squares"},
            {"formulation": "squares", "tangents": 0},
        ]
    ),
)
def test_proves_the_optimum(seed, n, scale, factored, groups, relax, options):
    p = random_problem(n, groups, factored, scale, seed)
    solution = solve(p, "cpsat", seed=0, workers=1, relax=relax, **options)
    energy = lowest_energy(p)
    size = np.abs(p.Q).sum() + abs(p.offset)
    assert solution.energy == pytest.approx(energy, rel=0, abs=1e-9 * size)
    # No claim of optimality if rounding leaves a larger gap than the tolerance.
    info = solution.info
    coarse = max(info.get("rounding", 0.0), info.get("lowering", 0.0))
    too_coarse = 4 * coarse > info.get("tolerance", 0.0)
    assert too_coarse or solution.status is Status.OPTIMAL
    # The bound holds, including rounding of the coefficients.
    assert solution.bound <= energy + 1e-14 * size
    assert solution.bound >= energy - 1e-6 * size


@settings(max_examples=15)
@example(238)  # the bound still equals the optimum
@example(0)
@given(seed=st.integers(0, 10_000))
def test_coarse_coefficients_give_an_honest_bound_and_no_proof(seed):
    p = random_problem(8, 1, False, 1.0, seed)
    options = {"formulation": "products", "bits": 8, "relax": False, "workers": 1}
    solution = solve(p, "cpsat", seed=0, **options)
    energy = lowest_energy(p)
    assert solution.bound is None or solution.bound <= energy + 1e-12
    if solution.info.get("rounding", 0) > 1e-6 * abs(energy - p.offset):
        # Unless rounding lowers the optimum more than any other state.
        met = solution.energy - solution.bound <= solution.info["tolerance"]
        assert solution.status is (Status.OPTIMAL if met else Status.FEASIBLE)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 9), data=st.data())
def test_rounding_is_bounded_for_every_state(seed, n, data):
    """The claimed error bounds the error of every state, and is not negative."""
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(n, n))
    R = R + R.T
    k = data.draw(st.integers(1, n))
    states = np.array([s for s in np.ndindex(*[2] * n) if sum(s) == k], dtype=np.float64)
    errors = np.einsum("bi,ij,bj->b", states, R, states)
    assert largest(R, k) >= errors.max() - 1e-12


@pytest.mark.parametrize("formulation", ["products", "squares"])
@pytest.mark.parametrize("factored", [True, False])
def test_integer_objective_is_the_energy_up_to_rounding(formulation, factored):
    p = random_problem(8, 2, factored, 3.0, 5)
    start = Diagonal().run(p, Request()).samples[0]
    if formulation == "products":
        model = products(p, Request(), rlt=False, bits=40)
    else:
        model = squares(p, Request(), start, tangents=2)
    states = np.array(list(np.ndindex(*[2] * 8)), dtype=np.uint8)
    for x in states[p.is_feasible(states)]:
        values = {variable.index: value for variable, value in model.complete(x)}
        objective = model.model.proto.objective
        terms = zip(objective.vars, objective.coeffs, strict=True)
        value = sum(values[v] * c for v, c in terms)
        assert model.lower(value) <= p.energy(x)
        assert model.lower(value) == pytest.approx(p.energy(x), abs=1e-5)


@pytest.mark.parametrize("formulation", ["products", "squares"])
def test_a_problem_without_coefficients(formulation):
    p = CardinalityQUBO.from_factors(np.zeros((3, 30)), np.zeros(30), 10, offset=2.0)
    answer = solve(p, "cpsat", formulation=formulation, relax=False, workers=1)
    assert answer.is_optimal
    assert answer.energy == 2.0


def test_squares_prove_more_than_products():
    """A block of the family: low rank, linear terms that outweigh the diagonal."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(20, 60)) + rng.normal(size=(20, 1))
    linear = 25 * rng.normal(size=60) - 2 * A.T @ (A @ np.full(60, 0.5))
    p = CardinalityQUBO.from_factors(A, linear, 30)
    squared = solve(p, "cpsat", formulation="squares", seed=0, workers=1)
    assert squared.is_optimal
    assert squared.energy == pytest.approx(solve(p, "exact", seed=0).energy, rel=1e-9)
    limited = solve(p, "cpsat", formulation="products", relax=False, time_limit=1.0, seed=0)
    assert limited.bound is None or limited.bound < squared.bound


def test_time_limit_returns_incumbent_and_bound():
    rng = np.random.default_rng(0)
    A, linear = rng.normal(size=(30, 70)), rng.normal(size=70)
    p = CardinalityQUBO.from_factors(A, linear, 35)
    start = np.zeros(70, np.uint8)
    start[:35] = 1
    solution = solve(p, "cpsat", time_limit=2.0, seed=0, initial_state=start, workers=1)
    assert solution.stop is Stop.TIME_LIMIT
    assert solution.status is Status.FEASIBLE
    assert solution.energy <= p.energy(start)
    assert solution.bound is None or solution.bound <= solve(p, "anneal", seed=0).energy


def test_incumbents_are_reported_and_the_callback_can_stop():
    p = random_problem(14, 1, False, 1.0, 4)
    seen: list[float] = []
    solution = solve(p, "cpsat", workers=1, callback=lambda t, e: seen.append(e))
    assert seen
    assert seen[-1] == pytest.approx(solution.energy)
    stopped = solve(p, "cpsat", workers=1, callback=lambda t, e: True)
    assert stopped.x is not None
    assert stopped.stop in (Stop.INTERRUPTED, Stop.PROVEN)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"bits": 60},
        {"tangents": -1},
        {"tolerance": 1.0},
        {"formulation": "cubes"},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        solve(random_problem(5, 1, False, 1.0, 1), "cpsat", **options)
