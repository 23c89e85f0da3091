"""SCIP against brute force and the other exact solvers: answers, proofs, valid bounds."""

from __future__ import annotations

import time

import numpy as np
import pytest
from brute_force import lowest_energy, random_problem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import MissingBackendError, OptionError, Status, Stop, solve
from solvers.base import Request
from solvers.diagonal import Diagonal
from solvers.scip import Scip
from solvers.scip.model import products, squares

pytest.importorskip("pyscipopt")

FORMULATIONS = {"squares": squares, "products": products}


def hard(n: int = 80) -> CardinalityQUBO:
    """Draw a problem that SCIP does not prove in seconds."""
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, n // 2)


@settings(max_examples=60)
@example(4020, 2, 1e-12, False, 1, False, "products")  # the optimum is 0
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 9),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    factored=st.booleans(),
    groups=st.sampled_from([1, 1, 3]),
    relax=st.booleans(),
    formulation=st.sampled_from(list(FORMULATIONS)),
)
def test_proves_the_optimum(seed, n, scale, factored, groups, relax, formulation):
    p = random_problem(n, groups, factored, scale, seed)
    solution = solve(p, "scip", seed=0, relax=relax, formulation=formulation)
    energy = lowest_energy(p)
    size = np.abs(p.Q).sum() + abs(p.offset)
    assert solution.energy == pytest.approx(energy, rel=0, abs=1e-9 * size)
    # No claim where what the bound was lowered by is more than a proof may leave open.
    info = solution.info
    too_coarse = 4 * info.get("lowered", 0.0) > info.get("tolerance", 0.0)
    assert too_coarse or solution.status is Status.OPTIMAL
    assert solution.bound <= energy + 1e-14 * size
    assert solution.bound >= energy - 1e-6 * size


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_objective_is_the_energy_of_every_state(formulation, factored, groups):
    p = random_problem(8, groups, factored, 3.0, 5)
    start = Diagonal().run(p, Request()).samples[0]
    form = FORMULATIONS[formulation](p, Request(), start)
    states = np.array(list(np.ndindex(*[2] * 8)), dtype=np.uint8)
    states = states[p.is_feasible(states)]
    below = states[p.energy(states) <= p.energy(start)]
    assert len(below)
    for x in below:
        solution = form.model.createSol()
        for variable, value in form.complete(x):
            form.model.setSolVal(solution, variable, value)
        assert form.model.checkSol(solution)
        objective = form.model.getSolObjVal(solution)
        assert form.lower(objective) <= p.energy(x)
        assert form.lower(objective) == pytest.approx(p.energy(x), rel=1e-7)


def test_squares_prove_what_products_do_not():
    """A block of the family: low rank, linear terms that outweigh the diagonal."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(20, 40)) + rng.normal(size=(20, 1))
    linear = 25 * rng.normal(size=40) - 2 * A.T @ (A @ np.full(40, 0.5))
    p = CardinalityQUBO.from_factors(A, linear, 20)
    squared = solve(p, "scip", relax=False, seed=0)
    assert squared.is_optimal
    assert squared.energy == pytest.approx(solve(p, "exact", seed=0).energy, rel=1e-9)
    limited = solve(p, "scip", formulation="products", relax=False, time_limit=1.0, seed=0)
    assert not limited.is_optimal
    assert limited.bound is None or limited.bound < squared.bound


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_a_problem_without_coefficients(formulation):
    p = CardinalityQUBO.from_factors(np.zeros((3, 30)), np.zeros(30), 10, offset=2.0)
    answer = solve(p, "scip", formulation=formulation, relax=False)
    assert answer.is_optimal
    assert answer.energy == 2.0


@pytest.mark.parametrize("relax", [True, False])
def test_time_limit_returns_incumbent_and_bound(relax):
    p = hard()
    start = np.zeros(p.n, np.uint8)
    start[: p.k] = 1
    begin = time.process_time()
    solution = solve(p, "scip", time_limit=1.0, seed=0, initial_state=start, relax=relax)
    assert time.process_time() - begin < 4
    assert solution.stop is Stop.TIME_LIMIT
    assert solution.status is Status.FEASIBLE
    assert solution.energy <= p.energy(start)
    assert solution.bound is not None
    assert solution.bound <= solve(p, "anneal", seed=0).energy


def test_a_warm_start_is_never_lost():
    """SCIP starts from the best state known, so that nothing better is left to report."""
    p = random_problem(12, 2, True, 1.0, 4)
    best = solve(p, "exact").x
    seen: list[float] = []
    solution = solve(
        p, "scip", initial_state=best, relax=False, callback=lambda t, e: seen.append(e)
    )
    assert seen == [solution.energy]


def test_incumbents_are_reported_and_the_callback_can_stop():
    p = hard(30)
    seen: list[tuple[float, float]] = []
    solution = solve(p, "scip", relax=False, callback=lambda *call: seen.append(call))
    assert len(seen) > 1
    assert seen[-1][1] == pytest.approx(solution.energy)
    stopped = solve(p, "scip", relax=False, callback=lambda t, e: e <= seen[1][1] + 1e-9)
    assert stopped.x is not None
    assert stopped.stop is Stop.INTERRUPTED


def test_a_failing_callback_is_the_callers_to_see():
    from solvers import CallbackError

    def fail(seconds: float, energy: float) -> None:
        raise LookupError("mine")

    with pytest.raises(CallbackError, match="LookupError: mine"):
        solve(hard(20), "scip", callback=fail)


@pytest.mark.parametrize("options", [{"tolerance": 1.0}, {"formulation": "cubes"}])
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        solve(random_problem(5, 1, False, 1.0, 1), "scip", **options)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(Scip, "requires", {"pyscipopt_missing": "pyscipopt>=6"})
    with pytest.raises(MissingBackendError, match=r'pip install "icbs-pruning\[scip\]"'):
        solve(random_problem(5, 1, False, 1.0, 1), "scip")
