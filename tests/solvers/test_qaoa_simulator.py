"""Circuits and their simulation, against qiskit's own state vector."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import UnsupportedError
from solvers.base import Request
from solvers.qaoa.circuit import (
    MIXERS,
    cardinality_circuit,
    complete,
    dicke,
    penalty_circuit,
    ring,
)
from solvers.qaoa.rotations import exchanges, flips
from solvers.qaoa.simulator import (
    cardinality_simulator,
    energy_scale,
    penalty_simulator,
    tail_mean,
)
from solvers.qaoa.space import MAX_STATES, count_feasible, feasible_space, full_space
from solvers.qaoa.start import Start, relaxation_point, start_of

qiskit = pytest.importorskip("qiskit")
from qiskit.quantum_info import Statevector  # noqa: E402


def problem_of(n, seed=0, num_groups=1, shuffled=False):
    rng = np.random.default_rng(seed)
    Q, groups = rng.normal(size=(n, n)), np.arange(n) % num_groups
    if shuffled:
        groups = rng.permutation(groups)
    ones = rng.integers(0, np.bincount(groups, minlength=num_groups) + 1)
    return CardinalityQUBO(Q + Q.T, ones, groups=groups, offset=-0.5)


def half(n, seed=0, num_groups=1):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    groups = np.arange(n) % num_groups
    return CardinalityQUBO(Q + Q.T, np.bincount(groups) // 2, groups=groups, offset=-0.5)


def starts_of(problem, seed=0):
    rng = np.random.default_rng(seed)
    yield Start()
    yield Start(state=problem.minimise_linear(rng.normal(size=problem.n)))
    yield Start(odds=np.exp(rng.normal(size=problem.n)))


def exact_probabilities(circuit, angles):
    bare = circuit.remove_final_measurements(inplace=False)
    return Statevector(bare.assign_parameters(angles)).probabilities()


def numbers_of(states):
    return states @ (1 << np.arange(states.shape[1]))


# -- the space --------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_feasible_states_are_all_and_only_those(n, seed, num_groups):
    problem = problem_of(n, seed, min(num_groups, n), shuffled=True)
    everything = full_space(n).states()
    expected = everything[problem.is_feasible(everything)]
    space = feasible_space(problem)
    found = space.states()
    assert space.size == len(found) == len(expected) == count_feasible(problem)
    assert set(numbers_of(found)) == set(numbers_of(expected))
    np.testing.assert_allclose(space.energies(problem), problem.energy(found), atol=1e-12)
    chosen = np.random.default_rng(seed).integers(space.size, size=5)
    np.testing.assert_array_equal(space.states(chosen), found[chosen])
    assert [space.position(x) for x in found] == list(range(space.size))


def test_states_outside_the_space_have_no_position():
    with pytest.raises(ValueError, match="not one of"):
        feasible_space(half(4)).position(np.array([1, 1, 1, 0], dtype=np.uint8))


def test_products_are_relative_weights():
    problem = half(7, num_groups=2)
    space, weights = feasible_space(problem), np.random.default_rng(1).uniform(0.1, 9, size=7)
    expected = np.prod(np.where(space.states() == 1, weights, 1), axis=1)
    np.testing.assert_allclose(space.products(weights), expected / expected.max())


def test_too_many_states_are_refused_with_a_remedy():
    for n in (26, 200):
        with pytest.raises(UnsupportedError, match="smaller blocks"):
            feasible_space(CardinalityQUBO(np.eye(n), n // 2))
    with pytest.raises(UnsupportedError, match="form='cardinality'"):
        full_space(23)
    wide = CardinalityQUBO(np.eye(64), 2)  # few states, many qubits
    assert feasible_space(wide).size == math.comb(64, 2) < MAX_STATES


@pytest.mark.parametrize("num_groups", [1, 2])
def test_gates_pair_all_states_that_they_exchange(num_groups):
    problem = half(8, 1, num_groups)
    space = feasible_space(problem)
    states = space.states()
    members = problem.group_members[0]
    for i, j in complete(members.tolist()):
        gate = exchanges(space, [(i, j)])
        pairs = {
            tuple(sorted((row[0] + column[0], row[1] + column[1])))
            for r0, r1, c0, c1, _ in gate.parts
            for row in gate.rows[r0:r1]
            for column in gate.columns[c0:c1]
        }
        swapped = states.copy()
        swapped[:, [i, j]] = states[:, [j, i]]
        positions = [space.position(x) for x in swapped]
        expected = {tuple(sorted((s, t))) for s, t in enumerate(positions) if s != t}
        assert pairs == expected
    assert len(flips(full_space(3)).parts) == 3


# -- the simulation ---------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize(
    ("n", "num_groups"), [(2, 1), (5, 1), (6, 1), (7, 2), (9, 3), (10, 1), (10, 2)]
)
def test_the_simulator_is_the_circuit(mixer, n, num_groups):
    problem = half(n, n, num_groups)
    angles = np.random.default_rng(n).normal(size=4)
    for start in starts_of(problem, n):
        simulator = cardinality_simulator(problem, mixer, start)
        circuit = cardinality_circuit(problem, simulator.scale, 2, mixer, start)
        exact = exact_probabilities(circuit, angles)
        positions = numbers_of(simulator.space.states())
        found = simulator.probabilities(angles)
        np.testing.assert_allclose(found, exact[positions], atol=1e-10)
        assert exact[positions].sum() == pytest.approx(1.0)  # no weight on infeasible states
        expectation = exact[positions] @ problem.energy(simulator.space.states())
        measured = simulator.objective(angles, 1.0) * simulator.scale
        assert measured == pytest.approx(expectation, abs=1e-10)


def test_the_penalty_simulator_is_the_circuit():
    problem = half(6)
    angles = np.random.default_rng(0).normal(size=6)
    for start in starts_of(problem):
        exact = exact_probabilities(penalty_circuit(problem, 3.0, 3, start), angles)
        simulator = penalty_simulator(problem, 3.0, start)
        positions = numbers_of(simulator.space.states())
        np.testing.assert_allclose(simulator.probabilities(angles), exact[positions], atol=1e-10)


@pytest.mark.parametrize("tail", [1.0, 0.3])
@pytest.mark.parametrize("form", ["complete", "ring", "penalty"])
def test_gradients_are_slopes(form, tail):
    problem = half(7, 3, 2)
    for seed, start in enumerate(starts_of(problem)):
        if form == "penalty":
            simulator = penalty_simulator(problem, 2.0, start)
        else:
            simulator = cardinality_simulator(problem, form, start)
        angles = np.random.default_rng(seed).normal(size=6) / 2
        value, slope = simulator.gradient(angles, tail)
        assert value == pytest.approx(simulator.objective(angles, tail))
        for i, step in enumerate(np.eye(6) * 1e-5):
            rise = simulator.objective(angles + step, tail) - simulator.objective(
                angles - step, tail
            )
            assert slope[i] == pytest.approx(rise / 2e-5, abs=1e-4)


@pytest.mark.slow
def test_feasible_states_are_simulated_much_faster_than_all_states():
    problem = half(18)
    angles = np.array([1.2, 0.08])
    simulator = cardinality_simulator(problem, "complete", Start())
    circuit = cardinality_circuit(problem, simulator.scale, 1, "complete")
    bare = circuit.remove_final_measurements(inplace=False).assign_parameters(angles)
    seconds, found = [], 0.0
    for _ in range(5):
        begin = time.perf_counter()
        found = simulator.objective(angles, 1.0)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    exact = Statevector(bare)
    ratio = (time.perf_counter() - begin) / min(seconds)
    weights = exact.probabilities()[numbers_of(simulator.space.states())]
    assert found == pytest.approx(weights @ simulator.energies, abs=1e-10)
    assert ratio > 50  # about 1000 on an idle machine


def test_twenty_variables_take_seconds():
    problem = half(20)
    simulator = cardinality_simulator(problem, "complete", Start())
    assert simulator.space.size == math.comb(20, 10)
    found = simulator.probabilities(np.array([0.5, 0.05]))
    assert found.sum() == pytest.approx(1)
    # The mean over the uniform distribution, where every x_i x_j has the same probability.
    uniform = simulator.probabilities(np.zeros(2))
    Q, off = problem.Q, problem.Q.sum() - np.trace(problem.Q)
    mean = np.trace(Q) / 2 + off * (10 * 9) / (20 * 19) + problem.offset
    assert uniform @ simulator.energies * simulator.scale == pytest.approx(mean)
    assert found @ simulator.energies < uniform @ simulator.energies


def test_energies_have_a_scale_even_if_states_are_too_many():
    small = half(12)
    exact = energy_scale(small)
    assert exact == pytest.approx(problem_spread(small))
    large = half(40, 1)
    assert energy_scale(large) == pytest.approx(problem_spread(large, 20_000), rel=0.1)
    assert energy_scale(CardinalityQUBO(np.zeros((4, 4)), 2)) == 1.0


def problem_spread(problem, draws=None):
    if draws is None:
        states = full_space(problem.n).states()
        return problem.energy(states[problem.is_feasible(states)]).std()
    rng = np.random.default_rng(0)
    return problem.energy(
        np.array([problem.minimise_linear(rng.random(problem.n)) for _ in range(draws)])
    ).std()


def test_draws_follow_the_probabilities():
    problem = half(6)
    simulator = cardinality_simulator(problem, "ring", Start())
    angles = np.array([0.7, 0.4])
    states = simulator.draw(angles, 40_000, np.random.default_rng(0))
    counts = np.bincount([simulator.space.position(x) for x in states], minlength=20)
    np.testing.assert_allclose(counts / 40_000, simulator.probabilities(angles), atol=0.012)


# -- initial states ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 7))
def test_dicke_states_are_even_and_in_phase(n):
    ones = np.array([bin(state).count("1") for state in range(2**n)])
    for k in range(n + 1):
        circuit = qiskit.QuantumCircuit(n)
        dicke(circuit, range(n), k)
        amplitudes = Statevector(circuit).data
        expected = (ones == k) / np.sqrt((ones == k).sum())
        np.testing.assert_allclose(np.abs(amplitudes), expected, atol=1e-12)
        np.testing.assert_allclose(np.ptp(np.angle(amplitudes[ones == k])), 0, atol=1e-7)


@given(st.integers(1, 7), st.data())
@settings(max_examples=30, deadline=None)
def test_warm_dicke_states_are_independent_bits_given_their_sum(n, data):
    k = data.draw(st.integers(0, n))
    odds = np.exp(data.draw(st.lists(st.floats(-7, 7), min_size=n, max_size=n)))
    circuit = qiskit.QuantumCircuit(n)
    dicke(circuit, range(n), k, odds)
    states = full_space(n).states()
    weights = np.prod(np.where(states == 1, odds, 1), axis=1) * (states.sum(axis=1) == k)
    found = Statevector(circuit).data
    reference = found[numbers_of(states)]
    phase = reference[np.argmax(weights)]
    np.testing.assert_allclose(
        reference * (phase.conj() / abs(phase)), np.sqrt(weights / weights.sum()), atol=1e-7
    )


def test_the_relaxation_is_optimal_and_warms_the_start():
    rng = np.random.default_rng(0)
    A, linear = rng.normal(size=(6, 10)), rng.normal(size=10)
    groups = np.repeat([0, 1], 5)
    problem = CardinalityQUBO.from_factors(A, linear, [2, 3], groups=groups)
    y = relaxation_point(problem, Request())
    assert np.bincount(groups, y) == pytest.approx([2, 3])
    assert y.min() >= 0
    assert y.max() <= 1
    slope = 2 * A.T @ (A @ y) + linear
    for x in rng.random((200, 10)):  # no feasible direction descends (first-order optimality)
        x = problem.minimise_linear(x).astype(float)
        assert slope @ (x - y) >= -1e-7
    start = start_of("relaxation", problem, Request(), 0.1)
    np.testing.assert_allclose(start.odds / (1 + start.odds), np.clip(y, 0.1, 0.9))
    np.testing.assert_allclose(np.sin(start.tilts / 2) ** 2, np.clip(y, 0.1, 0.9))


def test_a_warm_start_begins_at_a_lower_energy():
    zeros = np.zeros(2)
    for seed in range(5):
        problem = half(10, seed)
        warm = start_of("relaxation", problem, Request())
        energies = [
            cardinality_simulator(problem, "ring", start).objective(zeros, 1.0)
            for start in (warm, Start())
        ]
        assert energies[0] < energies[1]


# -- mixers and tails -------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 9))
def test_mixers_pair_each_once_in_few_rounds(size):
    members = list(range(10, 10 + size))
    everyone = {frozenset(pair) for pair in complete(members)}
    assert len(complete(members)) == len(everyone) == size * (size - 1) // 2
    around = ring(members)
    assert len(around) == len({frozenset(p) for p in around}) == (size if size > 2 else size - 1)
    for pairs, rounds in ((complete(members), size - 1 + size % 2), (around, 2 + size % 2)):
        depth = dict.fromkeys(members, 0)
        for i, j in pairs:
            depth[i] = depth[j] = 1 + max(depth[i], depth[j])
        assert max(depth.values()) <= rounds


def test_tail_mean():
    energies, weights = np.array([3.0, 1.0, 2.0]), np.array([0.5, 0.25, 0.25])
    assert tail_mean(energies, weights, 1.0) == pytest.approx(2.25)
    assert tail_mean(energies, weights, 0.25) == pytest.approx(1.0)
    assert tail_mean(energies, weights, 0.5) == pytest.approx(1.5)
