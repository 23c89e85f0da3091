import importlib.util

import numpy as np
import pytest
from brute_force import lowest_energy

from problems import CardinalityQUBO
from solvers import MissingBackendError, OptionError, Status, Stop, UnsupportedError, create, solve
from solvers.adapters import as_solver
from solvers.qaoa.angles import ramp
from solvers.qaoa.circuit import cardinality_circuit, circuit_metrics, penalty_circuit
from solvers.qaoa.metrics import metrics_of
from solvers.qaoa.primitive import transpiled
from solvers.qaoa.start import Start

qiskit = pytest.importorskip("qiskit")


def problem_of(n, seed=0, num_groups=1):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    groups = np.arange(n) % num_groups
    return CardinalityQUBO(Q + Q.T, np.bincount(groups) // 2, groups=groups, offset=-0.5)


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


@pytest.mark.parametrize("optimizer", ["nelder-mead", "powell", "l-bfgs", "spsa"])
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


@pytest.mark.parametrize("mixer", ["ring", "complete"])
@pytest.mark.parametrize("num_groups", [1, 2])
def test_metrics_of_a_simulation_are_those_of_its_circuit(mixer, num_groups):
    rng = np.random.default_rng(0)
    for seed in range(3):
        problem = problem_of(7, seed, num_groups)
        Q = problem.Q * (np.add.outer(np.arange(7), np.arange(7)) % 3 != 1)
        problem = CardinalityQUBO(Q, problem.cardinalities, groups=problem.groups)
        starts = [Start(), Start(odds=np.exp(rng.normal(size=7)))]
        starts.append(Start(state=problem.minimise_linear(rng.normal(size=7))))
        for start in starts:
            built = {
                mixer: cardinality_circuit(problem, 0.7, 2, mixer, start),
                None: penalty_circuit(problem, 0.7, 2, start),
            }
            for kind, circuit in built.items():
                found = metrics_of(problem, 2, kind, start)
                assert found == circuit_metrics(transpiled(circuit, None))


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
        {"start": "cold"},
        {"epsilon": 0.0},
        {"epsilon": 0.6},
        {"slopes": (1.0,)},
        {"ramp_factors": ()},
        {"noise": 1.0},
        {"noise": "much"},
        {"noise": 0.01, "sampler": object()},
        {"optimizer": "l-bfgs", "sampler": object()},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(OptionError):
        create("qaoa", **options)


def test_too_many_variables_and_states_are_refused():
    with pytest.raises(UnsupportedError, match="at most n = 64"):
        solve(problem_of(65), "qaoa")
    with pytest.raises(UnsupportedError, match="feasible states"):
        solve(problem_of(30), "qaoa")
    with pytest.raises(UnsupportedError, match="n = 22"):
        solve(CardinalityQUBO(np.eye(24), 2), "qaoa", form="penalty")


# -- ramps and starts -------------------------------------------------------------------------


def test_a_ramp_rises_and_falls():
    np.testing.assert_allclose(ramp(1, (0.6, 0.3)), [0.6, 0.3])
    np.testing.assert_allclose(ramp(3, (0.6, 0.3)), [0.2, 0.4, 0.6, 0.3, 0.2, 0.1])


def test_ramps_need_no_optimiser():
    problem = problem_of(10, 3)
    one = solve(problem, "qaoa", optimizer="ramp", slopes=(0.5, 0.1), p=3, seed=0)
    assert one.info["evaluations"] == 1
    np.testing.assert_allclose(one.info["angles"], ramp(3, (0.5, 0.1)))
    factors = (0.5, 1.0, 2.0)
    scan = solve(problem, "qaoa", optimizer="ramp", ramp_factors=factors, p=3, seed=0)
    each = [
        solve(problem, "qaoa", optimizer="ramp", ramp_factors=(f,), p=3, seed=0) for f in factors
    ]
    assert scan.info["evaluations"] == 3
    assert scan.info["tail_energy"] == min(a.info["tail_energy"] for a in each)
    limited = solve(
        problem, "qaoa", optimizer="ramp", ramp_factors=factors, p=3, seed=0, evaluations=2
    )
    assert limited.info["evaluations"] == 2


def test_deeper_ramps_are_better():
    problem = problem_of(12, 7)
    common = {"optimizer": "ramp", "tail": 1.0, "seed": 0}
    energies = [solve(problem, "qaoa", p=p, **common).info["tail_energy"] for p in (1, 4, 16)]
    assert energies == sorted(energies, reverse=True)


def test_optimisers_start_from_the_best_ramp():
    problem = problem_of(9, 2)
    scan = {"ramp_factors": (0.3, 1.0, 3.0), "seed": 0}
    ramped = solve(problem, "qaoa", optimizer="ramp", **scan)
    better = solve(problem, "qaoa", evaluations=40, **scan)
    assert better.info["tail_energy"] <= ramped.info["tail_energy"]


@pytest.mark.parametrize("form", ["cardinality", "penalty"])
@pytest.mark.parametrize("start", ["status-quo", "relaxation"])
def test_starts(form, start):
    problem = problem_of(8, 2)
    state = np.arange(8) < 4
    answer = solve(problem, "qaoa", form=form, start=start, initial_state=state, seed=0)
    assert answer.feasible.all()
    assert answer.energy <= problem.energy(state)
    assert answer.info["options"]["start"] == start


def test_the_status_quo_needs_an_initial_state():
    with pytest.raises(UnsupportedError, match="initial_state"):
        solve(problem_of(6), "qaoa", start="status-quo")


def test_a_status_quo_without_angles_stays():
    problem = problem_of(6)
    state = np.arange(6) < 3
    answer = solve(
        problem,
        "qaoa",
        start="status-quo",
        optimizer="ramp",
        slopes=(1.0, 0.0),
        initial_state=state,
        num_reads=20,
        seed=0,
    )
    assert (answer.samples == state).all()


# -- noise ------------------------------------------------------------------------------------


def noisy(problem, noise, **options):
    return solve(
        problem, "qaoa", noise=noise, optimizer="ramp", p=1, mixer="ring", seed=0, **options
    )


def test_noise_costs_feasibility_and_energy():
    pytest.importorskip("qiskit_aer")
    problem = problem_of(6, 1)
    faint, strong = (noisy(problem, rate, tail=1.0) for rate in (1e-9, 0.05))
    exact = solve(problem, "qaoa", optimizer="ramp", p=1, mixer="ring", tail=1.0, seed=0)
    assert faint.info["feasible_share"] == 1.0
    assert strong.info["feasible_share"] < 0.8
    deviation = 4 * problem.energy(faint.samples).std() / np.sqrt(1024)
    assert faint.info["tail_energy"] == pytest.approx(exact.info["tail_energy"], abs=deviation + 1)
    assert strong.feasible.all()
    again = noisy(problem, 0.05, tail=1.0)
    assert again.info["feasible_share"] == strong.info["feasible_share"]


def test_noise_models_are_taken():
    aer = pytest.importorskip("qiskit_aer.noise")
    model = aer.NoiseModel()
    model.add_all_qubit_readout_error([[0.5, 0.5], [0.5, 0.5]])  # readout at random
    share = noisy(problem_of(6, 1), model).info["feasible_share"]
    assert share == pytest.approx(20 / 64, abs=0.06)


def test_a_missing_simulator_is_named(monkeypatch):
    find = importlib.util.find_spec
    missing = {"qiskit_aer"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in missing else find(name)
    )
    with pytest.raises(MissingBackendError, match=r"icbs-pruning\[quantum\]"):
        create("qaoa", noise=0.01)


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
