"""Circuits on a line and lattices of processors, against circuits without restrictions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from problems import CardinalityQUBO
from solvers.qaoa.circuit import cost_layer, dicke, exchange, ring
from solvers.readiness import load_target
from solvers.readiness.counts import GateCounter
from solvers.readiness.lattice import edges, line
from solvers.readiness.line import cost_line, dicke_line, line_circuit
from solvers.readiness.logical import line_cost_count

qiskit = pytest.importorskip("qiskit")
from qiskit.quantum_info import Statevector  # noqa: E402


def random_problem(n, k, groups=None, seed=0):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    Q[0, 1:3] = Q[1:3, 0] = 0
    return CardinalityQUBO(Q + Q.T, k, groups=groups)


def probabilities(circuit, order):
    """Probability of each state of the variables, the first one at the lowest bit."""
    n = len(order)
    found = Statevector(circuit).probabilities().reshape((2,) * n)  # axis 0: the last position
    axes = [n - 1 - order.index(variable) for variable in reversed(range(n))]
    return found.transpose(axes).ravel()


@pytest.mark.parametrize("n", range(1, 8))
def test_dicke_states_on_a_line(n):
    for k in range(n + 1):
        on_line, free = qiskit.QuantumCircuit(n), qiskit.QuantumCircuit(n)
        dicke_line(on_line, 0, n, k)
        dicke(free, range(n), k)
        expected = Statevector(free).data
        # Up to a sign of all amplitudes.
        assert abs(np.vdot(expected, Statevector(on_line).data)) == pytest.approx(1)


@pytest.mark.parametrize("start", ["dicke", "bits"])
@pytest.mark.parametrize(
    ("n", "k", "groups"),
    [(2, 1, None), (5, 2, None), (6, 3, None), (7, [1, 2], [0, 1, 0, 0, 1, 1, 1])],
)
def test_the_line_gives_the_same_states(n, k, groups, start):
    problem = random_problem(n, k, groups)
    gammas, betas = np.array([0.3, 0.7]), np.array([0.9, 0.4])
    bits = None
    if start == "bits":
        bits = problem.minimise_linear(problem.diagonal)
    on_line = qiskit.QuantumCircuit(n)
    members = [group.tolist() for group in problem.group_members]
    order = line_circuit(
        on_line,
        problem.Q,
        members,
        problem.cardinalities.tolist(),
        start=bits,
        mixer="ring",
        gammas=gammas,
        betas=betas,
    )
    free = qiskit.QuantumCircuit(n)
    if bits is not None:
        free.x(np.flatnonzero(bits))
    for group, k in zip(members, problem.cardinalities.tolist(), strict=True):
        if bits is None:
            dicke(free, group, k)
    for gamma, beta in zip(gammas, betas, strict=True):
        cost_layer(free, problem.Q, gamma)
        for group in members:
            for i, j in ring(group):
                exchange(free, i, j, beta)
    expected = Statevector(free).probabilities()
    np.testing.assert_allclose(probabilities(on_line, order), expected, atol=1e-10)


@pytest.mark.parametrize("mixer", ["ring", "complete"])
def test_only_neighbours_meet_and_feasible_states_are_kept(mixer):
    problem = random_problem(6, [2, 1], [0, 1, 0, 1, 0, 0])
    circuit = qiskit.QuantumCircuit(6)
    order = line_circuit(
        circuit,
        problem.Q,
        [group.tolist() for group in problem.group_members],
        [2, 1],
        start=None,
        mixer=mixer,
        gammas=[0.3],
        betas=[0.8],
    )
    for item in circuit.data:
        positions = [circuit.find_bit(qubit).index for qubit in item.qubits]
        assert len(positions) == 1 or abs(positions[0] - positions[1]) == 1
    states = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(np.uint8)
    found = probabilities(circuit, order)
    assert found[~problem.is_feasible(states)].sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", range(1, 20))
def test_the_formula_of_the_cost_on_a_line(n):
    Q = np.random.default_rng(n).integers(-1, 2, size=(n, n))
    Q = np.triu(Q, 1) + np.triu(Q, 1).T
    counter = GateCounter(n)
    order = list(range(n))
    cost_line(counter, order, Q, 1.0)
    assert counter.count == line_cost_count(n, np.count_nonzero(Q) // 2)
    assert order == list(range(n))[:: -1 if n > 1 else 1]


@pytest.mark.parametrize("name", ["heavy-hex", "grid", "all-to-all"])
def test_lattices_and_their_lines(name):
    import networkx

    target = load_target(name)
    graph = networkx.Graph(edges(target))
    assert sorted(graph.nodes) == list(range(target.qubits))
    assert networkx.is_connected(graph)
    found = line(target)
    assert len(set(found)) == len(found) >= 0.8 * target.qubits
    assert all(graph.has_edge(a, b) for a, b in itertools.pairwise(found))
    if name == "heavy-hex":
        # IBM's map of ibm_fez: 176 couplings, and these at the first bridges.
        assert graph.number_of_edges() == 176
        for pair in [(3, 16), (16, 23), (15, 19), (19, 35), (21, 36), (36, 41), (39, 53)]:
            assert graph.has_edge(*pair)
        assert max(degree for _, degree in graph.degree) == 3
    if name == "grid":
        assert graph.number_of_edges() == 218
