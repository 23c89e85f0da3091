"""Fault-tolerant figures against built circuits, published estimates, and formulas of the paper."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from problems.penalty import penalised, penalty_for
from solvers.errors import OptionError
from solvers.qaoa.circuit import cardinality_circuit, penalty_circuit
from solvers.qaoa.start import Start
from solvers.readiness import load_target
from solvers.readiness.fault_tolerant import (
    EstimateError,
    estimate,
    fault_tolerant,
    parameters,
    shots_needed,
)
from solvers.readiness.logical_counts import LogicalCounts, dicke_rotations, logical_counts
from solvers.readiness.problem import Couplings

# Found, not imported: the first import decides on telemetry (see conftest.py).
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("qdk"), reason="qdk is missing")

SUPERCONDUCTING, ATOMS = load_target("superconducting"), load_target("neutral-atom")
ERRORS = ("one_qubit_error", "two_qubit_error", "measurement_error", "t_error")
#: Angles of Clifford gates among rotations.
QUARTERS = math.pi / 2


def dense(n: int, k: int, seed: int = 0, density: float = 1.0) -> CardinalityQUBO:
    rng = np.random.default_rng(seed)
    Q = np.triu(rng.normal(size=(n, n)) * (rng.random((n, n)) < density))
    return CardinalityQUBO(Q + Q.T, k=k)


def grouped(sizes: list[int], ks: list[int]) -> CardinalityQUBO:
    n = sum(sizes)
    Q = np.random.default_rng(n).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, k=ks, groups=np.repeat(np.arange(len(sizes)), sizes))


# -- counts -----------------------------------------------------------------------------------


def count_rotations(circuit) -> LogicalCounts:
    """Walk over a built circuit; Clifford gates take no layer of rotations."""
    layers = dict.fromkeys(circuit.qubits, 0)
    rotations = measurements = 0
    for item in circuit.data:
        name, qubits = item.operation.name, item.qubits
        if name == "measure":
            measurements += 1
            continue
        front = max(layers[q] for q in qubits)
        rotation = name in ("rx", "ry", "rz", "rzz") and not clifford(item.operation.params[0])
        rotations += rotation
        for q in qubits:
            layers[q] = front + rotation
    return LogicalCounts(
        circuit.num_qubits, rotations, max(layers.values()), measurements=measurements
    )


def clifford(angle) -> bool:
    return not getattr(angle, "parameters", None) and float(angle) % QUARTERS == 0


CASES = [dense(n, k) for n in range(2, 13) for k in sorted({1, n // 2, n - 1})]
CASES += [dense(8, 3, seed, 0.3) for seed in range(4)]
CASES += [grouped([4, 4], [2, 1]), grouped([5, 3, 2], [2, 3, 1]), grouped([1, 6], [1, 4])]


def start_of(name: str, problem: CardinalityQUBO) -> Start:
    rng = np.random.default_rng(problem.n)
    if name == "status-quo":
        return Start(state=problem.minimise_linear(rng.normal(size=problem.n)))
    return Start(odds=rng.uniform(0.3, 3, problem.n) if name == "relaxation" else None)


def check(built: LogicalCounts, counts: LogicalCounts) -> None:
    assert (built.qubits, built.rotations) == (counts.qubits, counts.rotations)
    assert built.measurements == counts.measurements
    # Layers of parts that follow each other may overlap in the circuit.
    assert counts.rotation_depth / 2 <= built.rotation_depth <= counts.rotation_depth


@pytest.mark.parametrize("mixer", ["ring", "complete"])
@pytest.mark.parametrize("start", ["dicke", "status-quo", "relaxation"])
@pytest.mark.parametrize("p", [1, 3])
def test_counts_of_the_cardinality_form_are_those_of_the_built_circuit(p, start, mixer):
    for problem in CASES:
        circuit = cardinality_circuit(problem, 1.0, p, mixer, start_of(start, problem))
        check(count_rotations(circuit), logical_counts(problem, p, start, mixer))


@pytest.mark.parametrize("start", ["uniform", "status-quo", "relaxation"])
@pytest.mark.parametrize("p", [1, 2])
def test_counts_of_the_penalty_form_are_those_of_the_built_circuit(p, start):
    for problem in CASES:
        form = penalised(problem, penalty_for(problem, "sum-abs"))
        circuit = penalty_circuit(form, 1.0, p, start_of(start, problem))
        check(count_rotations(circuit), logical_counts(problem, p, start, "x", "penalty"))


@pytest.mark.parametrize("n", range(2, 15))
def test_dicke_states_are_counted_to_the_layer(n):
    from qiskit import QuantumCircuit

    from solvers.qaoa.circuit import dicke

    for k in range(n + 1):
        circuit = QuantumCircuit(n)
        dicke(circuit, range(n), k)
        built = count_rotations(circuit)
        assert (built.rotations, built.rotation_depth) == dicke_rotations(n, k)


def test_a_bit_string_costs_nothing():
    problem = dense(10, 4)
    start = logical_counts(problem, 1, "status-quo").rotations
    assert logical_counts(problem, 1, "dicke").rotations - start == dicke_rotations(10, 4)[0]
    assert logical_counts(problem, 3, "status-quo").rotations == 3 * start
    assert start == 10 + 45 + 20  # linear terms, couplings, XX and YY of ten neighbours
    assert logical_counts(Couplings.of(problem), 1, "status-quo").rotations == start


# -- estimates --------------------------------------------------------------------------------

FACTORING = LogicalCounts(
    qubits=12581,
    rotations=12,
    rotation_depth=12,
    t_gates=12,
    ccz_gates=3731607428,
    measurements=1078154040,
)


@pytest.mark.parametrize(
    ("error", "distance", "factories", "millions", "hours"),
    [(1e-3, 27, 15, 37.65, 48), (1e-4, 13, 18, 8.72, 18)],
)
def test_published_estimates_of_factoring_are_found(error, distance, factories, millions, hours):
    """Microsoft's tutorial on the resource estimator: 2,048 bits, gate-based ns qubits."""
    target = SUPERCONDUCTING.model_copy(
        update=dict.fromkeys(ERRORS, error) | {"error_budget": 0.333}
    )
    row = fault_tolerant(dense(4, 2), target, counts=FACTORING)
    assert row.layout_qubits == 25481
    assert row.code_distance == distance
    assert row.factories == factories
    assert row.physical_qubits / 1e6 == pytest.approx(millions, abs=0.005)
    assert row.shot_seconds / 3600 == pytest.approx(hours, rel=0.25)  # printed as whole days
    assert f"{row.logical_depth:.1e}" == "1.2e+10"
    assert f"{row.t_states:.1e}" == "1.5e+10"


def test_the_superconducting_target_is_the_estimators_own_profile():
    from qdk.estimator import LogicalCounts as Counts

    asked = Counts({"numQubits": 30, "rotationCount": 900, "rotationDepth": 60})
    own = asked.estimate({"qubitParams": {"name": "qubit_gate_ns_e3"}, "errorBudget": 0.01})
    ours = asked.estimate(parameters(SUPERCONDUCTING))
    assert dict(ours)["physicalCounts"] == dict(own)["physicalCounts"]


@given(
    n=st.integers(2, 60),
    k=st.integers(1, 59),
    p=st.integers(1, 8),
    error=st.floats(1e-5, 3e-3),
    budget=st.floats(1e-4, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_figures_follow_the_formulas_of_the_paper(n, k, p, error, budget):
    """Layout, synthesis, depth, distance and time of arXiv 2211.07629, computed again."""
    problem = dense(n, min(k, n - 1))
    target = SUPERCONDUCTING.model_copy(
        update=dict.fromkeys(ERRORS, error) | {"error_budget": budget}
    )
    counts = logical_counts(problem, p)
    row = fault_tolerant(problem, target, p)
    R, part = counts.rotations, budget / 3
    layout = 2 * n + math.ceil(math.sqrt(8 * n)) + 1
    assert row.layout_qubits == layout
    assert row.t_per_rotation == math.ceil(0.53 * math.log2(R / part) + 4.86)
    assert row.t_states == R * row.t_per_rotation
    depth = counts.measurements + R + row.t_per_rotation * counts.rotation_depth
    parts = estimate(counts, target)["physicalCounts"]["breakdown"]
    assert parts["algorithmicLogicalDepth"] == depth
    assert row.logical_depth >= depth  # longer where one T factory is slower
    needed = part / (layout * row.logical_depth)

    def logical_error(d: int) -> float:
        return 0.03 * (error / 0.01) ** ((d + 1) / 2)

    d = row.code_distance
    assert d % 2 == 1
    assert logical_error(d) <= needed * (1 + 1e-9)
    assert d == 1 or logical_error(d - 2) > needed * (1 - 1e-9)
    assert row.physical_qubits - row.factory_qubits == layout * 2 * d * d
    cycle = d * (4 * target.two_qubit_time + 2 * target.measurement_time)
    assert row.cycle_seconds == pytest.approx(cycle)
    assert row.shot_seconds == pytest.approx(row.logical_depth * cycle)
    assert row.logical_qubits == n


def test_atoms_take_longer_with_fewer_qubits():
    fast, slow = (fault_tolerant(dense(16, 8), target) for target in (SUPERCONDUCTING, ATOMS))
    assert slow.technology == "neutral-atom"
    assert slow.shot_seconds > 100 * fast.shot_seconds
    assert slow.physical_qubits < fast.physical_qubits  # better T gates before distillation
    json.dumps(dataclasses.asdict(slow), allow_nan=False)


def test_large_problems_are_estimated_from_counts():
    A = np.random.default_rng(0).normal(size=(4, 4096))
    problem = CardinalityQUBO.from_factors(A, np.zeros(4096), k=1000)
    row = fault_tolerant(problem, SUPERCONDUCTING, 4)
    assert row.rotations > 4 * 4096 * 4095 // 2
    assert row.physical_qubits > 10**6
    assert row.skipped == ""


# -- shots ------------------------------------------------------------------------------------


@given(p=st.floats(1e-6, 1 - 1e-6))
def test_shots_are_the_fewest_that_reach_99_percent(p):
    shots = shots_needed(p)
    assert (1 - p) ** shots <= 0.01 * (1 + 1e-6)
    assert shots == 1 or (1 - p) ** (shots - 1) > 0.01 * (1 - 1e-6)


def test_time_to_solution_counts_shots_and_faults():
    problem = dense(8, 4)
    row = fault_tolerant(problem, SUPERCONDUCTING, success=0.1)
    assert row.shots == shots_needed(0.1 * (1 - SUPERCONDUCTING.error_budget))
    assert row.solution_seconds == pytest.approx(row.shots * row.shot_seconds)
    unknown = fault_tolerant(problem, SUPERCONDUCTING)
    assert (unknown.success, unknown.shots, unknown.solution_seconds) == (None, None, None)
    never = fault_tolerant(problem, SUPERCONDUCTING, success=0.0)
    assert (never.shots, never.solution_seconds) == (None, None)
    assert fault_tolerant(problem, SUPERCONDUCTING, success=1.0).shots == shots_needed(0.99)
    assert shots_needed(0.995) == 1


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 5])
def test_decided_problems_are_skipped(k):
    row = fault_tolerant(dense(5, k), SUPERCONDUCTING)
    assert "decided by its cardinality" in row.skipped
    assert row.physical_qubits is None


def test_problems_without_couplings_and_several_groups():
    zero = fault_tolerant(CardinalityQUBO(np.zeros((4, 4)), k=2), SUPERCONDUCTING)
    assert zero.rotations == 4 + 8 + dicke_rotations(4, 2)[0]
    assert zero.physical_qubits
    row = fault_tolerant(grouped([4, 3, 2], [2, 0, 2]), SUPERCONDUCTING)
    assert row.logical_qubits == 9
    assert row.physical_qubits


@pytest.mark.parametrize(
    ("figure", "value", "message"),
    [
        ("two_qubit_error", 0.02, "two_qubit_error is 0.02"),
        ("one_qubit_error", 0.01, "less than 0.01"),
        ("t_error", 0.0, "t_error is 0"),
        ("t_error", 0.3, "t_error is 0.3"),
        ("measurement_time", 1e-10, "whole nanoseconds"),
    ],
)
def test_targets_beyond_the_code_are_skipped(figure, value, message):
    row = fault_tolerant(dense(6, 3), SUPERCONDUCTING.model_copy(update={figure: value}))
    assert message in row.skipped
    assert row.rotations  # the part that still holds
    assert row.physical_qubits is None


def test_the_estimators_own_refusal_is_passed_on():
    target = SUPERCONDUCTING.model_copy(update={"two_qubit_error": 0.0099})
    row = fault_tolerant(dense(6, 3), target)
    assert "Error estimating resources" in row.skipped
    with pytest.raises(EstimateError):
        estimate(LogicalCounts(6, 100, 10, measurements=6), target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 0}, "p is 0"),
        ({"start": "guess"}, "start is 'guess'"),
        ({"mixer": "x"}, "mixer is 'x'"),
        ({"encoding": "guess"}, "encoding is 'guess'"),
        ({"success": 1.5}, "success is 1.5"),
        ({"success": float("nan")}, "success is nan"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        fault_tolerant(dense(4, 2), SUPERCONDUCTING, **options)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "qdk", None)
    row = fault_tolerant(dense(4, 2), SUPERCONDUCTING)
    assert "pip install 'icbs-pruning[quantum]'" in row.skipped
    assert row.rotations
    assert row.code_distance is None


def test_telemetry_is_off_before_the_import():
    code = (
        "from solvers.readiness.fault_tolerant import estimate\n"
        "from solvers.readiness.logical_counts import LogicalCounts\n"
        "from solvers.readiness import load_target\n"
        "estimate(LogicalCounts(4, 50, 5), load_target('superconducting'))\n"
        "from qdk import telemetry\n"
        "print(telemetry.TELEMETRY_ENABLED)\n"
    )
    environ = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    assert done.stdout.split() == ["False"]
