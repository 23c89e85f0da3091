"""The linear penalty policy with samplers: multipliers found, repaired or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from brute_force import lowest_energy, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from problems.penalty import Penalty
from solvers import Capabilities, Outcome, Request, Status, Stop, solve
from solvers.penalised import Penalised


@dataclass(frozen=True)
class Enumeration(Penalised):
    """The lowest of all states, whatever their count."""

    name: ClassVar[str] = "enumeration"
    summary: ClassVar[str] = "for tests"
    capabilities: ClassVar[Capabilities] = Capabilities(
        native_cardinality=False, groups=True, num_reads=False
    )

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        states = np.array(list(np.ndindex(*[2] * form.n)), dtype=np.uint8)
        return Outcome(states[[np.argmin(form.energy(states))]], Stop.CONVERGED)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 9),
    groups=st.sampled_from([1, 1, 3]),
    factored=st.booleans(),
)
def test_what_a_multiplier_finds_is_the_optimum(seed, n, groups, factored):
    """Without a repair that costs, the answer of an exact sampler is optimal (Everett 1963)."""
    p = random_problem(n, groups, factored, 1.0, seed)
    answer = solve(p, Enumeration(penalty="linear", raises=40))
    best, size = lowest_energy(p), np.abs(p.Q).sum()
    assert answer.x is not None
    assert answer.energy >= best - 1e-9 * size
    if "penalty" not in answer.info:  # one state alone is feasible
        return
    report = answer.info["penalty"]
    assert report["policy"] == "linear"
    assert np.max(report["strengths"]) == 0
    assert len(report["shifts"]) == len(report["strengths"]) <= 41
    if not answer.repaired[0]:
        assert answer.energy == pytest.approx(best, abs=1e-9 * size)


def test_most_problems_are_solved_and_each_is_feasible():
    """Convex blocks, as pruning makes them: repairs at a skipped count cost little."""
    rng = np.random.default_rng(0)
    solved = 0
    for seed in range(20):
        A, linear = rng.normal(size=(5, 12)), 3 * rng.normal(size=12)
        p = CardinalityQUBO.from_factors(A, linear, 6)
        answer = solve(p, Enumeration(penalty="linear"), seed=seed)
        assert answer.status is Status.FEASIBLE
        solved += answer.energy <= lowest_energy(p) + 1e-9
    assert solved >= 15


def test_it_ends_where_a_repair_costs_nothing():
    """Variables without coefficients: any count of them is as good."""
    A = np.zeros((2, 12))
    A[:, :4] = np.random.default_rng(0).normal(size=(2, 4))
    p = CardinalityQUBO.from_factors(A, np.array([-20.0, -20, 20, 20, *[0] * 8]), 6)
    answer = solve(p, Enumeration(penalty="linear"))
    assert answer.energy == pytest.approx(lowest_energy(p))
    assert len(answer.info["penalty"]["shifts"]) < 9


def test_a_count_that_no_multiplier_has_is_repaired_or_refused():
    """Ones attract each other, so that all or none are best, and never half."""
    Q = np.full((10, 10), -1.0)
    p = CardinalityQUBO(Q, 5)
    repaired = solve(p, Enumeration(penalty="linear"))
    assert repaired.energy == -25
    assert repaired.repaired[0]
    refused = solve(p, Enumeration(penalty="linear", repair=False))
    assert refused.status is Status.NO_SOLUTION_FOUND
    assert refused.x is None


@pytest.mark.parametrize("solver", ["tabu", "neal", "steepest"])
def test_samplers_take_it_by_name(solver):
    rng = np.random.default_rng(1)
    A, linear = rng.normal(size=(10, 40)), 5 * rng.normal(size=40)
    p = CardinalityQUBO.from_factors(A, linear, [10, 10], groups=np.arange(40) % 2)
    answer = solve(p, solver, penalty="linear", seed=0, num_reads=5)
    best = solve(p, "exact", seed=0)
    assert best.is_optimal
    assert answer.energy - best.energy <= 0.05 * abs(best.energy)
    assert np.shape(answer.info["penalty"]["shift"]) == (2,)  # one multiplier a group


def test_trials_share_a_time_limit():
    p = random_problem(40, 1, True, 1.0, 3)
    answer = solve(p, "tabu", penalty="linear", seed=0, time_limit=1.0, num_restarts=10**6)
    assert answer.x is not None
    assert 0.5 < answer.timing.total < 2.5
