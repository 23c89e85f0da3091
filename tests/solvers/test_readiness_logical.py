"""Counts by formulas against circuits that are built and decomposed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from problems.penalty import penalised, penalty_for
from solvers.errors import OptionError
from solvers.qaoa.circuit import (
    MIXERS,
    cardinality_circuit,
    cost_layer,
    dicke,
    exchange,
    penalty_circuit,
)
from solvers.qaoa.start import Start
from solvers.readiness.counts import GateCount
from solvers.readiness.logical import STARTS, dicke_count, logical_circuit, mixer_count
from solvers.readiness.problem import Couplings

qiskit = pytest.importorskip("qiskit")

BASIS = ["cx", "cz", "u"]


def counted(circuit):
    """Gates of a circuit that is decomposed by Qiskit."""
    plain = circuit.remove_final_measurements(inplace=False)
    done = qiskit.transpile(plain, basis_gates=BASIS, optimization_level=0)
    two = [item for item in done.data if item.operation.num_qubits == 2]
    depth = done.depth(lambda item: item.operation.num_qubits == 2)
    return GateCount(len(done.data) - len(two), len(two), depth)


def alone(n, build):
    circuit = qiskit.QuantumCircuit(n)
    build(circuit)
    return counted(circuit)


def problem_of(n, k, seed=0, num_groups=1, density=1.0):
    rng = np.random.default_rng(seed)
    Q = np.triu(rng.normal(size=(n, n)) * (rng.random((n, n)) < density), 1)
    groups = rng.permutation(np.arange(n) % num_groups)
    Q = Q + Q.T + np.diag(rng.normal(size=n))
    return CardinalityQUBO(Q, k, groups=groups) if num_groups > 1 else CardinalityQUBO(Q, k)


@pytest.mark.parametrize("n", range(1, 13))
def test_dicke_states(n):
    for k in range(n + 1):
        assert dicke_count(n, k) == alone(n, lambda circuit, k=k: dicke(circuit, range(n), k))


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("n", range(1, 13))
def test_mixers(mixer, n):
    def build(circuit):
        for i, j in MIXERS[mixer](range(n)):
            exchange(circuit, i, j, 0.3)

    assert mixer_count(n, mixer) == alone(n, build)


def start_named(name, problem):
    if name == "status-quo":
        return Start(state=problem.minimise_linear(problem.diagonal))
    return Start(odds=np.linspace(0.5, 2, problem.n)) if name == "relaxation" else Start()


def check(problem, p, mixer, start="dicke"):
    found = logical_circuit(problem, p, start, mixer)
    circuit = cardinality_circuit(problem, 1.0, p, mixer, start_named(start, problem))
    angles = np.linspace(0.1, 1, len(circuit.parameters))
    circuit = circuit.assign_parameters(dict(zip(circuit.parameters, angles, strict=True)))
    built = counted(circuit)
    assert (found.total.one_qubit, found.total.two_qubit) == (built.one_qubit, built.two_qubit)
    assert found.total.two_qubit_depth >= built.two_qubit_depth
    assert found.cost == alone(problem.n, lambda c: cost_layer(c, problem.Q, 0.7))
    assert found.qubits == problem.n
    return found


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("start", STARTS["cardinality"])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_circuits_of_the_cardinality_encoding(n, density, start, mixer):
    for k in {0, 1, n // 2, n - 1, n}:
        check(problem_of(n, k, n, density=density), 1 + k % 2, mixer, start)


@pytest.mark.parametrize("mixer", MIXERS)
@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_circuits_with_groups(mixer, data):
    n = data.draw(st.integers(2, 12))
    num_groups = data.draw(st.integers(2, n))
    sizes = np.bincount(np.arange(n) % num_groups)
    ks = [data.draw(st.integers(0, int(size))) for size in sizes]
    check(problem_of(n, ks, n, num_groups, density=0.5), 2, mixer)


@pytest.mark.parametrize("start", STARTS["penalty"])
@pytest.mark.parametrize("num_groups", [1, 3])
@pytest.mark.parametrize("n", [3, 6, 12])
def test_circuits_of_the_penalty_encoding(n, num_groups, start):
    problem = problem_of(n, [1] * num_groups if num_groups > 1 else 1, n, num_groups, 0.4)
    found = logical_circuit(problem, 2, start, "x", "penalty")
    form = penalised(problem, penalty_for(problem, "exchange"))
    circuit = penalty_circuit(form, 1.0, 2, start_named(start, form))
    assert found.total == counted(circuit.assign_parameters([0.1, 0.2, 0.3, 0.4]))


def test_zero_couplings_are_left_out():
    Q = np.zeros((6, 6))
    Q[0, 3] = Q[3, 0] = 1e-300
    found = logical_circuit(CardinalityQUBO(Q, 2))
    assert found.cost == GateCount(one_qubit=7, two_qubit=2, two_qubit_depth=2)


def test_a_status_quo_costs_no_gate_on_two_qubits():
    found = logical_circuit(problem_of(9, 4), start="status-quo")
    assert found.preparation == GateCount(one_qubit=4)


def test_figures_of_the_literature():
    # 3 CX a pair on a line: 360, 6,048, 97,920 and 1.57 million.
    for n, expected in ((16, 360), (64, 6048), (256, 97920), (1024, 1571328)):
        empty = Couplings(np.zeros((n, n), dtype=bool), (n,), (n // 2,), np.zeros(n, np.int32))
        assert logical_circuit(empty).line_cost.two_qubit == expected


def test_any_size_in_a_second():
    n = 4096
    mask = ~np.eye(n, dtype=bool)
    couplings = Couplings(mask, (n,), (n // 2,), np.zeros(n, np.int32))
    begin = time.process_time()  # of this process alone: other processes take wall time
    found = logical_circuit(couplings, p=4)
    assert time.process_time() - begin < 1
    assert found.cost.two_qubit == n * (n - 1)
    assert found.cost.two_qubit_depth == 2 * (n - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "warm"}, "start is 'warm'; with the encoding cardinality: dicke"),
        ({"mixer": "x"}, "mixer is 'x'"),
        ({"encoding": "unary"}, "encoding is 'unary'"),
        ({"p": 0}, "p is 0"),
    ],
)
def test_unknown_names(changes, message):
    with pytest.raises(OptionError, match=message):
        logical_circuit(problem_of(4, 2), **changes)
