"""Circuits on processors: compiled and counted gates, and figures that follow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from problems import CardinalityQUBO
from solvers.readiness import load_target
from solvers.readiness.device import TRANSPILED_N, DeviceCircuit, counted, device_circuit
from solvers.readiness.logical import logical_circuit
from solvers.readiness.problem import Couplings
from solvers.readiness.target import GateTarget

pytest.importorskip("qiskit")


def dense(n, k=None, seed=0):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, n // 2 if k is None else k)


def chain(n, k):
    """A problem whose couplings are a path."""
    Q = np.zeros((n, n))
    for i in range(n - 1):
        Q[i, i + 1] = Q[i + 1, i] = 1.0
    return CardinalityQUBO(Q, k)


def groups_of(problem):
    return [members.tolist() for members in problem.group_members]


@pytest.mark.parametrize("start", ["dicke", "status-quo", "relaxation"])
@pytest.mark.parametrize("name", ["heavy-hex", "grid", "all-to-all"])
def test_compiled_circuits_take_no_more_gates_than_counted_ones(name, start):
    problem, target = dense(8), load_target(name)
    found = device_circuit(problem, target, 2, start)
    empty = DeviceCircuit(name, 2, start, "ring", 8)
    expected = counted(empty, target, Couplings.of(problem), groups_of(problem))
    assert 0 < found.two_qubit_gates <= expected.two_qubit_gates
    assert found.two_qubit_depth <= expected.two_qubit_depth
    assert found.method.startswith("compiled")
    assert expected.method.startswith("counted")


def test_native_rotations_of_zz_halve_the_cost():
    problem = dense(10)
    found = device_circuit(problem, load_target("all-to-all"))
    logical = logical_circuit(problem)
    assert found.two_qubit_gates == logical.total.two_qubit - logical.cost.two_qubit // 2
    assert found.swaps == 0


def test_sparse_couplings_are_routed_without_a_network_of_swaps():
    found = device_circuit(chain(10, 1), load_target("heavy-hex"), start="status-quo")
    assert found.method == "compiled"
    assert found.two_qubit_gates < 3 * 45


def test_success_and_duration_follow_from_the_counts():
    target = load_target("grid")
    found = device_circuit(dense(6), target)
    product = (
        (1 - target.one_qubit_error) ** found.one_qubit_gates
        * (1 - target.two_qubit_error) ** found.two_qubit_gates
        * (1 - target.readout_error) ** 6
    )
    assert found.success == pytest.approx(product)
    assert found.duration > found.two_qubit_depth * target.two_qubit_time + target.readout_time
    assert found.duration_t2 == pytest.approx(found.duration / target.t2)


def test_large_circuits_are_counted_at_once_and_larger_ones_name_the_limit():
    found = device_circuit(dense(TRANSPILED_N + 1), load_target("heavy-hex"), 4)
    assert found.method == "counted on a line"
    assert found.log10_success < -15
    beyond = device_circuit(dense(130), load_target("grid"))
    assert beyond.skipped == "130 qubits are needed; grid has 120"
    assert beyond.two_qubit_gates is None
    assert beyond.success is None
    between = device_circuit(dense(140), load_target("heavy-hex"))
    assert "line of qubits" in between.skipped


@pytest.mark.parametrize("k", [0, 7])
def test_decided_problems_have_no_dicke_state(k):
    found = device_circuit(dense(7, k), load_target("all-to-all"))
    assert found.two_qubit_gates == 21 + 14


def test_couplings_of_a_users_processor():
    ring = [(i, (i + 1) % 5) for i in range(5)]
    figures = load_target("grid").model_dump(exclude={"rows", "columns"})
    figures["sources"][0]["figures"] = [
        name.replace("rows", "couplings")
        for name in figures["sources"][0]["figures"]
        if name != "columns"
    ]
    target = GateTarget(**figures | {"topology": "explicit", "qubits": 5, "couplings": ring})
    found = device_circuit(dense(5), target)
    assert found.method == "compiled"
    assert found.swaps > 0
    assert (
        "known lattices"
        in counted(
            DeviceCircuit("ring", 1, "dicke", "ring", 5), target, Couplings.of(dense(5)), [range(5)]
        ).skipped
    )


def test_success_below_the_smallest_number_is_kept_as_a_logarithm():
    found = DeviceCircuit("x", 1, "dicke", "ring", 5, log10_success=-400.0)
    assert found.success == 0.0
    assert math.isfinite(found.log10_success)
