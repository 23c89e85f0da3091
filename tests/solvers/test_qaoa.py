import numpy as np
import pytest
from brute_force import lowest_energy

from problems import CardinalityQUBO
from solvers import OptionError, Status, Stop, UnsupportedError, create, solve
from solvers.adapters import as_solver
from solvers.qaoa.circuit import (
    MIXERS,
    cardinality_circuit,
    circuit_metrics,
    complete,
    dicke,
    penalty_circuit,
    ring,
)
from solvers.qaoa.simulator import (
    Simulator,
    all_states,
    exchanges,
    feasible_states,
    flips,
    tail_mean,
)

qiskit = pytest.importorskip("qiskit")
from qiskit.quantum_info import Statevector  # noqa: E402


def problem_of(n, seed=0, num_groups=1):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    groups = np.arange(n) % num_groups
    return CardinalityQUBO(Q + Q.T, np.bincount(groups) // 2, groups=groups, offset=-0.5)


# -- circuits against qiskit's own state vector ---------------------------------------------


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


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize(("n", "num_groups"), [(5, 1), (6, 1), (7, 2)])
def test_the_simulator_is_the_circuit(mixer, n, num_groups):
    problem = problem_of(n, n, num_groups)
    angles = np.random.default_rng(n).normal(size=4)
    circuit = cardinality_circuit(problem, 2.0, 2, mixer).remove_final_measurements(inplace=False)
    exact = Statevector(circuit.assign_parameters(angles)).probabilities()
    states = feasible_states(problem)
    pairs = [
        pair
        for g in range(num_groups)
        for pair in MIXERS[mixer](np.flatnonzero(problem.groups == g).tolist())
    ]
    simulator = Simulator(states, problem.energy(states) / 2.0, exchanges(states, pairs))
    positions = states @ (1 << np.arange(n))
    np.testing.assert_allclose(simulator.probabilities(angles), exact[positions], atol=1e-10)
    assert exact[positions].sum() == pytest.approx(1.0)  # no weight on infeasible states


def test_the_penalty_simulator_is_the_circuit():
    problem = problem_of(6)
    angles = np.random.default_rng(0).normal(size=6)
    circuit = penalty_circuit(problem, 3.0, 3).remove_final_measurements(inplace=False)
    exact = Statevector(circuit.assign_parameters(angles)).probabilities()
    states = all_states(6)
    simulator = Simulator(states, problem.energy(states) / 3.0, flips(states))
    np.testing.assert_allclose(simulator.probabilities(angles), exact, atol=1e-10)


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


def test_feasible_states_are_all_and_only_those():
    problem = problem_of(7, num_groups=2)
    states = all_states(7)
    expected = {tuple(state) for state in states[problem.is_feasible(states)]}
    found = feasible_states(problem)
    assert {tuple(state) for state in found} == expected
    assert len(found) == len(expected)


def test_tail_mean():
    energies, weights = np.array([3.0, 1.0, 2.0]), np.array([0.5, 0.25, 0.25])
    assert tail_mean(energies, weights, 1.0) == pytest.approx(2.25)
    assert tail_mean(energies, weights, 0.25) == pytest.approx(1.0)
    assert tail_mean(energies, weights, 0.5) == pytest.approx(1.5)


# -- the solver -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 10, 12])
@pytest.mark.parametrize("seed", range(2))
def test_the_optimum_is_among_the_samples(n, seed):
    problem = problem_of(n, seed)
    answer = solve(problem, "qaoa", seed=seed, evaluations=60)
    assert answer.energy == pytest.approx(lowest_energy(problem))
    assert answer.status is Status.FEASIBLE
    assert not answer.repaired.any()
    circuit = answer.info["circuit"]
    assert circuit["qubits"] == n
    # Two layers of couplings and exchanges between all pairs, with at least two gates each.
    assert circuit["two_qubit_gates"] >= 2 * 2 * n * (n - 1)
    assert circuit["depth"] > 4 * (n - 1)


@pytest.mark.parametrize("num_groups", [1, 2])
def test_the_penalty_form_is_raised_or_repaired(num_groups):
    problem = problem_of(8, 3, num_groups)
    answer = solve(problem, "qaoa", form="penalty", seed=0, num_reads=5)
    assert answer.energy == pytest.approx(lowest_energy(problem))
    assert answer.feasible.all()
    assert np.min(answer.info["penalty"]["strength"]) > 0
    assert len(answer.samples) == 5


def test_groups_and_rings():
    problem = problem_of(9, 1, num_groups=3)
    answer = solve(problem, "qaoa", mixer="ring", seed=1, num_reads=20)
    assert answer.feasible.all()
    assert answer.energy == pytest.approx(lowest_energy(problem))


def test_seeds_repeat_and_angles_carry_over():
    problem = problem_of(8, 5)
    first, again = (solve(problem, "qaoa", seed=7, num_reads=50) for _ in range(2))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.info["angles"] == again.info["angles"]
    carried = solve(
        problem_of(8, 6), "qaoa", seed=7, angles=tuple(first.info["angles"]), evaluations=1
    )
    assert carried.info["angles"] == first.info["angles"]
    assert carried.info["evaluations"] == 1


def test_optimising_lowers_the_energy():
    problem = problem_of(9, 2)
    short = solve(problem, "qaoa", seed=0, evaluations=1)
    longer = solve(problem, "qaoa", seed=0, evaluations=80)
    assert longer.info["tail_energy"] < short.info["tail_energy"]
    assert longer.info["evaluations"] <= 80


@pytest.mark.parametrize("optimizer", ["nelder-mead", "powell", "spsa"])
def test_other_optimisers(optimizer):
    if optimizer == "spsa":
        from qiskit_optimization.optimizers import SPSA

        optimizer = SPSA(maxiter=10, learning_rate=0.1, perturbation=0.1)
    problem = problem_of(8, 4)
    answers = [solve(problem, "qaoa", optimizer=optimizer, evaluations=30, seed=3) for _ in "ab"]
    assert answers[0].energy == pytest.approx(lowest_energy(problem))
    assert answers[0].info["angles"] == answers[1].info["angles"]


def test_time_limit_ends_the_optimiser():
    answer = solve(problem_of(12), "qaoa", time_limit=0.05, evaluations=10**6)
    assert answer.stop is Stop.TIME_LIMIT
    assert answer.status is Status.FEASIBLE


def test_a_primitive_and_a_backend_of_the_users():
    from qiskit.primitives import StatevectorSampler
    from qiskit.providers.fake_provider import GenericBackendV2

    problem = problem_of(4, 8)
    line = [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2]]
    backend = GenericBackendV2(4, coupling_map=line, seed=1)
    common = {"p": 1, "evaluations": 3, "shots": 100}
    for options in ({"sampler": StatevectorSampler(seed=1)}, {"backend": backend}):
        answer = solve(problem, "qaoa", seed=0, **common, **options)
        assert answer.energy == pytest.approx(lowest_energy(problem))
        assert answer.info["evaluations"] == 3
    sparse = answer.info["circuit"]["two_qubit_gates"]
    dense = solve(problem, "qaoa", seed=0, **common).info["circuit"]["two_qubit_gates"]
    assert sparse > dense  # a line of qubits needs swaps


def test_circuit_metrics():
    circuit = qiskit.QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    assert circuit_metrics(circuit) == {"qubits": 2, "depth": 3, "gates": 2, "two_qubit_gates": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"form": "other"},
        {"mixer": "star"},
        {"optimizer": "magic"},
        {"p": 0},
        {"shots": 0},
        {"evaluations": 0},
        {"tail": 0.0},
        {"tail": 1.5},
        {"angles": (1.0,)},
        {"angles": (1.0, float("nan"), 0.0, 0.0)},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(OptionError):
        create("qaoa", **options)


def test_too_many_variables_and_warm_starts_are_refused():
    with pytest.raises(UnsupportedError, match="at most n = 16"):
        solve(problem_of(17), "qaoa")
    with pytest.raises(UnsupportedError, match="initial_state"):
        solve(problem_of(4), "qaoa", initial_state=[1, 1, 0, 0])


# -- qiskit-optimization's algorithms as solvers ----------------------------------------------


def test_qiskit_optimisers_solve():
    from qiskit_optimization.algorithms import MinimumEigenOptimizer
    from qiskit_optimization.minimum_eigensolvers import NumPyMinimumEigensolver

    problem = problem_of(6, 2, num_groups=2)
    answer = solve(problem, MinimumEigenOptimizer(NumPyMinimumEigensolver()))
    assert answer.energy == pytest.approx(lowest_energy(problem))
    assert answer.info["solver"] == "qiskit:MinimumEigenOptimizer"
    assert answer.status is Status.FEASIBLE


def test_samples_of_qiskit_optimisers_are_all_kept_and_repaired():
    from qiskit.primitives import StatevectorSampler
    from qiskit_optimization.algorithms import MinimumEigenOptimizer
    from qiskit_optimization.minimum_eigensolvers import QAOA
    from qiskit_optimization.optimizers import COBYLA

    problem = problem_of(4, 2)
    ansatz = QAOA(StatevectorSampler(seed=0), COBYLA(maxiter=2), reps=1, initial_point=[0.1, 0.1])
    answer = solve(problem, MinimumEigenOptimizer(ansatz))
    assert answer.energy == pytest.approx(lowest_energy(problem))
    assert answer.feasible.all()
    assert 0 < answer.info["feasible_share"] < 1
    assert answer.info["feasible_share"] == pytest.approx(1 - answer.repaired.mean())


def test_incompatible_qiskit_optimisers_are_named():
    from qiskit_optimization.algorithms import SlsqpOptimizer

    solver = as_solver(SlsqpOptimizer())
    with pytest.raises(UnsupportedError, match="SlsqpOptimizer"):
        solve(problem_of(4), solver)
    with pytest.raises(UnsupportedError, match="seed"):
        solve(problem_of(4), solver, seed=1)
