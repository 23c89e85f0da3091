"""Quality of simulated circuits, against figures computed from all states and from samples."""

import dataclasses
import json
import math

import numpy as np
import pytest

from problems import CardinalityQUBO, InvalidProblemError
from solvers import OptionError
from solvers.qaoa.circuit import cardinality_circuit
from solvers.readiness.quality import MAX_STATES, quality

qiskit = pytest.importorskip("qiskit")
from qiskit.quantum_info import Statevector  # noqa: E402


def problem_of(n, seed=0, num_groups=1):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    groups = np.arange(n) % num_groups
    return CardinalityQUBO(Q + Q.T, np.bincount(groups) // 2, groups=groups, offset=3.0)


def every_state(problem):
    states = (np.arange(1 << problem.n)[:, None] >> np.arange(problem.n) & 1).astype(np.uint8)
    return states[problem.is_feasible(states)]


@pytest.mark.parametrize("mixer", ["ring", "complete"])
@pytest.mark.parametrize("num_groups", [1, 2])
def test_figures_are_those_of_the_circuit(mixer, num_groups):
    problem = problem_of(8, 1, num_groups)
    found = quality(problem, 2, mixer=mixer, shots=5, tail=0.25)
    states = every_state(problem)
    energies = problem.energy(states)
    circuit = cardinality_circuit(problem, found.random_deviation, 2, mixer)
    bare = circuit.remove_final_measurements(inplace=False)
    weights = Statevector(bare.assign_parameters(np.array(found.parameters))).probabilities()
    weights = weights[states @ (1 << np.arange(8))]
    assert found.states == len(states)
    assert found.optimum == pytest.approx(energies.min())
    assert found.random_mean == pytest.approx(energies.mean())
    assert found.random_deviation == pytest.approx(energies.std())
    mean = weights @ energies
    assert found.expectation == pytest.approx(mean)
    assert found.deviation == pytest.approx(np.sqrt(weights @ (energies - mean) ** 2))
    span = energies.mean() - energies.min()
    assert found.ratio == pytest.approx((energies.mean() - mean) / span)
    assert found.gap == pytest.approx(1 - found.ratio)
    assert found.random_gap == 1.0
    assert found.optimum_probability == pytest.approx(weights[energies.argmin()])
    assert found.random_optimum_probability == pytest.approx(1 / len(states))
    error = np.hypot(found.deviation, found.random_deviation) / np.sqrt(5)
    assert found.sigmas == pytest.approx((energies.mean() - mean) / error)
    assert found.above_random == (found.sigmas >= 3)
    # Expected bests and tails, against many samples.
    rng = np.random.default_rng(0)
    for p, best, cvar in (
        (weights, found.best, found.cvar),
        (None, found.random_best, found.random_cvar),
    ):
        draws = rng.choice(energies, size=(20_000, 5), p=None if p is None else p / p.sum())
        lows = draws.min(axis=1)
        assert best == pytest.approx(lows.mean(), abs=4 * lows.std() / np.sqrt(20_000))
        lowest = np.sort(draws.ravel())[: draws.size // 4]
        assert cvar == pytest.approx(lowest.mean(), abs=0.05 * energies.std())


def test_optimised_angles_are_better_and_deeper_circuits_too():
    problem = problem_of(10, 2)
    ratios = {
        (angles, p): quality(problem, p, angles=angles).ratio
        for angles in ("ramp", "optimised")
        for p in (1, 2, 4)
    }
    for p in (1, 2, 4):
        assert ratios["optimised", p] >= ratios["ramp", p]
    assert ratios["optimised", 1] < ratios["optimised", 2] < ratios["optimised", 4] <= 1
    assert quality(problem, 1, angles="ramp").evaluations == 1
    assert quality(problem, 1, angles="optimised").evaluations <= 60


def test_a_start_that_does_nothing_is_no_better_than_random():
    """All variables are alike to the cost, so that no angle moves the energy."""
    problem = CardinalityQUBO(np.eye(8) + 1, 4)
    flat = quality(problem, 1)
    assert flat.ratio is None
    assert flat.gap is None
    assert flat.sigmas == 0
    assert flat.above_random is False
    assert flat.optimum_probability == pytest.approx(1.0)


def test_the_verdict_depends_on_the_shots():
    problem = problem_of(8, 3)
    few, many = (quality(problem, 1, mixer="ring", shots=shots) for shots in (1, 10_000))
    assert not few.above_random
    assert many.above_random
    assert many.sigmas == pytest.approx(100 * few.sigmas)


def test_gaps_count_from_the_status_quo():
    problem = problem_of(8, 4)
    state = problem.minimise_linear(np.arange(8.0))
    found = quality(problem, 2, initial_state=state)
    reference = problem.energy(state) - found.optimum
    assert found.gap == pytest.approx((found.expectation - found.optimum) / reference)
    stuck = quality(problem, 2, initial_state=state, start="status-quo")
    warm = quality(problem, 2, start="relaxation")
    assert warm.ratio > stuck.ratio


def test_the_optimum_as_status_quo_has_no_gap():
    problem = problem_of(6, 5)
    states = every_state(problem)
    best = states[problem.energy(states).argmin()]
    assert quality(problem, 1, initial_state=best).gap is None


def test_noise_takes_shots_and_quality():
    pytest.importorskip("qiskit_aer")
    problem = problem_of(6, 1)
    common = {"mixer": "ring", "shots": 400, "seed": 3}
    exact, faint, strong = (
        quality(problem, 1, noise=noise, **common) for noise in (None, 1e-9, 0.05)
    )
    assert faint.feasible_share == 1
    assert abs(faint.expectation - exact.expectation) < 5 * exact.standard_error
    assert strong.feasible_share < 0.9
    held = round(400 * strong.feasible_share)
    assert strong.standard_error == pytest.approx(strong.deviation / math.sqrt(held))
    assert strong.random_standard_error == pytest.approx(exact.random_standard_error)
    assert strong.parameters == exact.parameters
    again = quality(problem, 1, noise=0.05, **common)
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(strong, seconds=0)


def test_large_problems_and_missing_states_are_skipped_with_a_reason():
    skipped = quality(problem_of(22), 2)
    assert skipped.states == math.comb(22, 11) > MAX_STATES
    assert "705,432" in skipped.skipped
    assert skipped.ratio is None
    assert "status quo" in quality(problem_of(4), 1, start="status-quo").skipped
    assert "feasible states" in quality(CardinalityQUBO(np.eye(4096), 2048), 1).skipped
    for found in (skipped, quality(problem_of(5), 1)):
        assert json.loads(json.dumps(dataclasses.asdict(found)))["p"] == found.p


@pytest.mark.parametrize(
    "options", [{"angles": "best"}, {"start": "hot"}, {"mixer": "star"}, {"p": 0}, {"shots": 0}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(OptionError):
        quality(problem_of(4), **{"p": 1, **options})


def test_infeasible_states_are_refused():
    with pytest.raises(InvalidProblemError, match="cardinality"):
        quality(problem_of(4), 1, initial_state=[1, 1, 1, 0])
