import threading
import time

import dimod
import numpy as np
import pytest
from brute_force import lowest_energy, random_problem

from problems import CardinalityQUBO
from problems.formats.bqm import to_cqm
from solvers import (
    BackendError,
    OptionError,
    Status,
    Stop,
    UnsupportedError,
    create,
    solve,
)
from solvers.adapters.ocean import call_within, dense_bqm, sample_states

LOCAL = ["neal", "tabu", "steepest"]


def free_problem(n, seed=0, num_groups=1):
    """Draw a problem with a choice in every group."""
    Q = np.random.default_rng(seed).normal(size=(n, n))
    groups = np.arange(n) % num_groups
    return CardinalityQUBO(Q + Q.T, np.bincount(groups) // 2, groups=groups)


@pytest.mark.parametrize("solver", LOCAL)
@pytest.mark.parametrize("seed", range(6))
def test_local_samplers_find_small_optima(solver, seed):
    problem = random_problem(9, 1 + seed % 3, seed % 2 == 0, 10.0 ** (seed - 3), seed)
    options = {"tabu": {"updates_least": 2000, "num_restarts": 1}}.get(solver, {})
    answer = solve(problem, solver, seed=seed, num_reads=30, **options)
    best = lowest_energy(problem)
    assert answer.energy == pytest.approx(best, rel=1e-6, abs=1e-6 * np.abs(problem.Q).max())
    assert answer.feasible.all()
    assert answer.status is not Status.OPTIMAL


@pytest.mark.parametrize("solver", LOCAL)
def test_local_samplers_stop_in_time(solver):
    rng = np.random.default_rng(0)
    problem = CardinalityQUBO.from_factors(rng.normal(size=(40, 400)), rng.normal(size=400), k=200)
    begin = time.process_time()  # a busy machine does not add to it
    answer = solve(problem, solver, time_limit=0.2, num_reads=100_000, seed=0)
    assert time.process_time() - begin < 1.22
    assert answer.stop is Stop.TIME_LIMIT
    assert answer.status is Status.FEASIBLE


def test_the_time_kept_for_raises_is_spent():
    rng = np.random.default_rng(0)
    problem = CardinalityQUBO.from_factors(rng.normal(size=(40, 200)), rng.normal(size=200), k=100)
    limit = 0.6
    answer = solve(problem, "tabu", time_limit=limit, num_restarts=10**6, penalty="exchange")
    assert answer.timing.total > 0.8 * limit
    assert len(answer.info["penalty"]["strengths"]) == 1


def test_a_cut_anneal_ends_cold():
    rng = np.random.default_rng(0)
    problem = CardinalityQUBO.from_factors(rng.normal(size=(40, 300)), rng.normal(size=300), k=150)
    cut = solve(problem, "neal", time_limit=0.05, num_sweeps=10**6, seed=0)
    assert cut.energy < solve(problem, "diagonal").energy


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("neal", {"num_sweeps": 0}),
        ("neal", {"beta_range": (2.0, 1.0)}),
        ("tabu", {"num_restarts": -1}),
        ("tabu", {"updates_first": 0}),
        ("steepest", {"growth": 0.5}),
        ("steepest", {"penalty": "guess"}),
        ("steepest", {"penalty": -1.0}),
        ("steepest", {"raises": -1}),
        ("qpu", {"anneals": 0}),
        ("qpu", {"sampler": dimod.ExactSolver()}),
        ("hybrid", {"sampler": dimod.ExactSolver()}),
    ],
)
def test_bad_options_are_refused(solver, options):
    with pytest.raises(OptionError):
        create(solver, **options)


def test_dense_models_and_states_keep_order_and_energy():
    problem = random_problem(11, 1, False, 3.0, 1)
    states = np.random.default_rng(0).integers(0, 2, size=(7, 11))
    for spin in (False, True):
        bqm = dense_bqm(problem, spin=spin)
        samples = 2 * states - 1 if spin else states
        np.testing.assert_allclose(bqm.energies((samples, range(11))), problem.energy(states))
        shuffled = dimod.SampleSet.from_samples_bqm((samples[:, ::-1], range(10, -1, -1)), bqm)
        np.testing.assert_array_equal(sample_states(shuffled, 11), states)


def test_occurrences_are_counted():
    answer = dimod.SampleSet.from_samples(
        [{0: 1, 1: 0}, {0: 0, 1: 1}], "BINARY", energy=[0, 0], num_occurrences=[2, 1]
    )
    assert sample_states(answer, 2).tolist() == [[1, 0], [1, 0], [0, 1]]


# -- quantum processors, mocked ---------------------------------------------------------------

testing = pytest.importorskip("dwave.system.testing")


def mock(topology, shape, **options):
    return testing.MockDWaveSampler(
        topology_type=topology, topology_shape=shape, parameter_warnings=False, **options
    )


@pytest.mark.parametrize(("topology", "shape"), [("pegasus", [3]), ("zephyr", [2, 4])])
def test_processors_are_embedded_and_reported(topology, shape):
    problem = free_problem(8, 5)
    answer = solve(problem, mock(topology, shape), num_reads=3)
    assert answer.energy == pytest.approx(lowest_energy(problem))
    assert answer.feasible.all()
    assert len(answer.samples) <= 3
    info = answer.info
    assert info["solver"] == "qpu"
    assert info["topology"]["type"] == topology
    assert info["qubits"] >= 8
    assert info["longest_chain"] >= 1
    assert info["chain_strength"] > 0
    assert 0 <= info["chain_break_fraction"] <= 1
    assert info["penalty"]["strength"] > 0


def test_faulty_qubits_are_avoided():
    whole = mock("zephyr", [2, 4])
    broken = whole.nodelist[::7]
    answer = solve(free_problem(6, 0), mock("zephyr", [2, 4], broken_nodes=broken))
    assert answer.status is Status.FEASIBLE


def test_groups_without_couplings_between_them_embed_sparsely():
    Q = np.kron(np.eye(10), np.array([[1.0, 0.5], [0.5, -1.0]]))
    problem = CardinalityQUBO(Q, k=[1] * 10, groups=np.repeat(np.arange(10), 2))
    answer = solve(problem, mock("zephyr", [2, 4]), num_reads=2)
    assert answer.energy == pytest.approx(-10.0)
    assert answer.info["longest_chain"] == 1


def test_chain_strength_and_embedding_can_be_given():
    problem = free_problem(5, 2)
    processor = mock("pegasus", [3])
    found = create("qpu", sampler=processor)._embed(problem, processor, request())
    answer = solve(problem, create("qpu", sampler=processor, embedding=found, chain_strength=7.0))
    assert answer.info["chain_strength"] == 7.0
    assert answer.info["qubits"] == sum(map(len, found.values()))


def request(time_limit=None):
    from solvers import Request

    return Request(time_limit=time_limit)


def test_too_many_variables_are_refused_before_anything_is_sent():
    class Silent(testing.MockDWaveSampler):
        def sample(self, *args, **kwargs):
            raise AssertionError("sent")

    small = Silent(topology_type="zephyr", topology_shape=[1, 4], parameter_warnings=False)
    problem = free_problem(60, 0)
    with pytest.raises(UnsupportedError, match="embedding of n = 60"):
        solve(problem, small)
    with pytest.raises(UnsupportedError, match="at most n = 232"):
        solve(CardinalityQUBO(np.eye(233), k=5), "qpu")


def test_a_queue_is_waited_for_no_longer_than_allowed():
    class Queue(testing.MockDWaveSampler):
        def sample(self, *args, **kwargs):
            time.sleep(30)
            return super().sample(*args, **kwargs)

    slow = Queue(topology_type="zephyr", topology_shape=[2, 4], parameter_warnings=False)
    begin = time.perf_counter()
    answer = solve(free_problem(6, 0), slow, time_limit=0.3)
    assert time.perf_counter() - begin < 20
    assert answer.status is Status.NO_SOLUTION_FOUND
    assert answer.stop is Stop.TIME_LIMIT
    assert len(answer.samples) == 0


def test_processor_errors_are_wrapped():
    class Broken(testing.MockDWaveSampler):
        def sample(self, *args, **kwargs):
            raise RuntimeError("calibration")

    with pytest.raises(BackendError, match="calibration"):
        solve(
            free_problem(6, 0),
            Broken(topology_type="zephyr", topology_shape=[2, 4]),
        )


@pytest.mark.parametrize("solver", ["qpu", "hybrid"])
def test_without_a_configuration_the_remedy_is_named(solver, monkeypatch, tmp_path):
    (tmp_path / "dwave.conf").write_text("[defaults]\n")
    monkeypatch.setenv("DWAVE_CONFIG_FILE", str(tmp_path / "dwave.conf"))
    for name in ("DWAVE_API_TOKEN", "DWAVE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BackendError, match="dwave config create"):
        solve(free_problem(6), solver)


# -- hybrid -----------------------------------------------------------------------------------


class Cloud:
    """Mock of the Leap hybrid solver: feasible and infeasible samples of a CQM."""

    def __init__(self, seconds=0.0):
        self.seconds, self.asked = seconds, None
        self.properties = {"maximum_number_of_variables": 12}

    def min_time_limit(self, cqm):
        return 5.0

    def sample_cqm(self, cqm, time_limit=None):
        self.asked = time_limit
        time.sleep(self.seconds)
        exact = dimod.ExactCQMSolver().sample_cqm(cqm)
        exact.info.update(run_time=5_000_000, secret="not ours to pass on")
        return exact


@pytest.mark.parametrize("seed", range(4))
def test_hybrid_holds_the_cardinality(seed):
    problem = free_problem(8, seed, num_groups=1 + seed % 2)
    cloud = Cloud()
    answer = solve(problem, cloud, time_limit=30)
    assert answer.energy == pytest.approx(lowest_energy(problem))
    assert 5.0 <= cloud.asked < 30
    assert answer.status is Status.FEASIBLE
    assert answer.info["backend"] == {"run_time": 5_000_000}
    assert "penalty" not in answer.info


def test_hybrid_refuses_unsupported_requests():
    cloud = Cloud()
    problem = free_problem(8, 0)
    with pytest.raises(UnsupportedError, match="at least 5"):
        solve(problem, cloud, time_limit=2)
    with pytest.raises(UnsupportedError, match="at most 12"):
        solve(CardinalityQUBO(np.eye(13), k=3), cloud)
    for asked in ({"seed": 1}, {"num_reads": 2}, {"initial_state": [1] * problem.k}):
        with pytest.raises(UnsupportedError, match="does not support"):
            solve(problem, cloud, **asked)
    assert cloud.asked is None


def test_hybrid_is_not_waited_for_beyond_the_limit(monkeypatch):
    cloud = Cloud(seconds=30)
    monkeypatch.setattr(cloud, "min_time_limit", lambda cqm: 0.1)
    begin = time.perf_counter()
    answer = solve(free_problem(6, 0), cloud, time_limit=0.3)
    assert time.perf_counter() - begin < 20
    assert answer.stop is Stop.TIME_LIMIT


def test_any_object_that_samples_constrained_models_will_do():
    problem = free_problem(7, 3, num_groups=2)
    answer = solve(problem, dimod.ExactCQMSolver())
    assert answer.energy == pytest.approx(lowest_energy(problem))
    assert to_cqm(problem).num_constraints()


# -- waiting ----------------------------------------------------------------------------------


def test_within_returns_raises_or_gives_up():
    assert call_within(request(), lambda: 42) == 42
    with pytest.raises(TimeoutError, match="its own"):
        call_within(request(5.0), raising(TimeoutError("its own")))
    with pytest.raises(ValueError, match="bad"):
        call_within(request(), raising(ValueError("bad")))
    release = threading.Event()
    assert call_within(request(0.05), release.wait) is None
    release.set()


def raising(error):
    def call():
        raise error

    return call
