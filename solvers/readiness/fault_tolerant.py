"""Part 6 of readiness: QAOA on a machine with error correction, estimated by Microsoft's qdk.

The estimator lays out logical qubits of the surface code, synthesises rotations from T gates,
distils T states and schedules all operations one after another (Beverland and others, arXiv
2211.07629).
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any

from problems import CardinalityQUBO
from solvers.errors import OptionError
from solvers.readiness.logical_counts import LogicalCounts, logical_counts
from solvers.readiness.problem import DECIDED, Couplings
from solvers.readiness.target import FaultTolerantTarget

#: Installs what this part needs.
PIP = "pip install 'icbs-pruning[quantum]'"
#: Error rate of the surface code above which no distance helps, as the estimator assumes. Nor does
#: it return from searching distillation units for some T gates with more.
THRESHOLD = 0.01
#: Wanted probability of at least one success.
CONFIDENCE = 0.99


@dataclass(frozen=True)
class FaultTolerant:
    """A QAOA circuit with error correction; figures are None where it can't be estimated."""

    target: str
    """Name of the target."""
    technology: str
    """Such as ``"superconducting"``."""
    p: int
    """Layers of QAOA."""
    encoding: str
    start: str
    mixer: str
    error_budget: float
    """Allowed probability that a shot fails."""
    logical_qubits: int | None = None
    """Qubits of the circuit."""
    layout_qubits: int | None = None
    """Logical qubits with those that the layout needs for routing."""
    rotations: int | None = None
    """Rotations by arbitrary angles."""
    rotation_depth: int | None = None
    """Layers with rotations."""
    ccz_gates: int | None = None
    t_per_rotation: int | None = None
    """T gates that synthesise one rotation."""
    t_states: int | None = None
    """T states of a shot: of all rotations, and four for each CCZ gate."""
    logical_depth: int | None = None
    """Logical cycles of a shot."""
    code_distance: int | None = None
    physical_qubits: int | None = None
    factory_qubits: int | None = None
    """Physical qubits of the T factories, a part of :attr:`physical_qubits`."""
    factories: int | None = None
    """T factories at work at the same time."""
    cycle_seconds: float | None = None
    """Duration of a logical cycle."""
    shot_seconds: float | None = None
    """Duration of a shot."""
    success: float | None = None
    """Probability that a shot without faults gives the optimum, where it is known."""
    shots: int | None = None
    """Shots that give the optimum with a probability of 99 %."""
    solution_seconds: float | None = None
    """Duration of those shots."""
    skipped: str = ""
    """Reason to leave this part out."""


def fault_tolerant(
    problem: CardinalityQUBO | Couplings,
    target: FaultTolerantTarget,
    p: int = 1,
    *,
    start: str = "dicke",
    mixer: str = "ring",
    encoding: str = "cardinality",
    success: float | None = None,
    counts: LogicalCounts | None = None,
) -> FaultTolerant:
    """Estimate qubits and time of QAOA with error correction, from counts of any size.

    A missing package, or a target above the threshold of its code, gives a row that says so.

    Parameters
    ----------
    problem : CardinalityQUBO or Couplings
    target : FaultTolerantTarget
    p : int
        Layers.
    start, mixer, encoding : str
        As for :func:`solvers.readiness.logical.logical_circuit`.
    success : float, optional
        Probability that a shot without faults gives the optimum, from a simulation.
    counts : LogicalCounts, optional
        Counts of another circuit, in place of those of :func:`logical_counts`.

    Raises
    ------
    OptionError
        If success is out of range, or p, start, mixer or encoding is refused.
    """
    if success is not None and not 0 <= success <= 1:
        raise OptionError(f"success is {success}; it must be a probability")
    couplings = problem if isinstance(problem, Couplings) else Couplings.of(problem)
    if counts is None:
        counts = logical_counts(couplings, p, start, mixer, encoding)
    row = FaultTolerant(
        target=target.name,
        technology=target.technology,
        p=p,
        encoding=encoding,
        start=start,
        mixer=mixer,
        error_budget=target.error_budget,
        success=success,
    )
    groups = zip(couplings.sizes, couplings.cardinalities, strict=True)
    if all(k in (0, size) for size, k in groups):
        return _skipped(row, DECIDED)
    row = dataclasses.replace(
        row,
        logical_qubits=counts.qubits,
        rotations=counts.rotations,
        rotation_depth=counts.rotation_depth,
        ccz_gates=counts.ccz_gates,
    )
    if (reason := _beyond(target)) is not None:
        return _skipped(row, reason)
    try:
        answer = estimate(counts, target)
    except ImportError as error:
        return _skipped(row, f"the estimate needs {error.name or error}: {PIP}")
    except EstimateError as error:
        return _skipped(row, str(error))
    row = dataclasses.replace(row, **_figures(answer))
    assert row.shot_seconds is not None
    if success is None:
        return row
    shots = shots_needed(success * (1 - target.error_budget))
    return dataclasses.replace(
        row,
        shots=shots,
        solution_seconds=None if shots is None else shots * row.shot_seconds,
    )


class EstimateError(Exception):
    """The estimator can't reach the error budget, or refuses a parameter."""


def estimate(counts: LogicalCounts, target: FaultTolerantTarget) -> dict[str, Any]:
    """Return the answer of qdk's resource estimator, with its own names.

    Its telemetry is turned off before the import, unless the environment decides on it.

    Raises
    ------
    ImportError
        If qdk is missing.
    EstimateError
        If qdk finds no solution; the message is qdk's own.
    """
    os.environ.setdefault("QDK_PYTHON_TELEMETRY", "none")
    from qdk import estimator

    asked = estimator.LogicalCounts(
        {
            "numQubits": counts.qubits,
            "tCount": counts.t_gates,
            "rotationCount": counts.rotations,
            "rotationDepth": counts.rotation_depth,
            "cczCount": counts.ccz_gates,
            "measurementCount": counts.measurements,
        }
    )
    try:
        answer = asked.estimate(parameters(target))
    except estimator.EstimatorError as error:  # derives from BaseException alone
        raise EstimateError(str(error)) from None
    return dict(answer)


def parameters(target: FaultTolerantTarget) -> dict[str, Any]:
    """Return a target as parameters of qdk's resource estimator.

    Idle qubits are given the error of one-qubit gates. The estimator's default surface code has a
    logical error of ``0.03 (ε/0.01)^((d + 1)/2)`` per cycle of ``d`` rounds, each of four
    two-qubit gates and two measurements, and ``2 d²`` physical qubits.
    """
    return {
        "qubitParams": {
            "name": target.name,
            "instructionSet": "GateBased",
            "oneQubitMeasurementTime": _nanoseconds(target.measurement_time),
            "oneQubitGateTime": _nanoseconds(target.one_qubit_time),
            "twoQubitGateTime": _nanoseconds(target.two_qubit_time),
            "tGateTime": _nanoseconds(target.one_qubit_time),
            "oneQubitMeasurementErrorRate": target.measurement_error,
            "oneQubitGateErrorRate": target.one_qubit_error,
            "twoQubitGateErrorRate": target.two_qubit_error,
            "tGateErrorRate": target.t_error,
            "idleErrorRate": target.one_qubit_error,
        },
        "qecScheme": {"name": "surface_code"},
        "errorBudget": target.error_budget,
    }


def shots_needed(success: float) -> int | None:
    """Return the shots that succeed at least once with 99 %; None if none ever does."""
    if success <= 0:
        return None
    if success >= CONFIDENCE:
        return 1
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-success))


def _figures(answer: dict[str, Any]) -> dict[str, Any]:
    physical, code = answer["physicalCounts"], answer["logicalQubit"]
    parts = physical["breakdown"]
    return {
        "layout_qubits": parts["algorithmicLogicalQubits"],
        "t_per_rotation": parts["numTsPerRotation"],
        "t_states": parts["numTstates"],
        "logical_depth": parts["logicalDepth"],
        "code_distance": code["codeDistance"],
        "physical_qubits": physical["physicalQubits"],
        "factory_qubits": parts["physicalQubitsForTfactories"],
        "factories": parts["numTfactories"],
        "cycle_seconds": code["logicalCycleTime"] * 1e-9,
        "shot_seconds": physical["runtime"] * 1e-9,
    }


def _beyond(target: FaultTolerantTarget) -> str | None:
    """Name a figure that the estimator does not take."""
    for name in ("one_qubit_error", "two_qubit_error", "measurement_error", "t_error"):
        value = getattr(target, name)
        if name != "measurement_error" and value >= THRESHOLD:
            return f"{name} is {value:g}; the estimator needs less than {THRESHOLD:g}"
        if value <= 0:
            return f"{name} is 0; the estimator needs an error above 0"
    for name in ("one_qubit_time", "two_qubit_time", "measurement_time"):
        value = getattr(target, name)
        if value < 1e-9:
            return f"{name} is {value:g} s; the estimator counts whole nanoseconds"
    return None


def _nanoseconds(seconds: float) -> str:
    return f"{round(seconds * 1e9)} ns"


def _skipped(row: FaultTolerant, reason: str) -> FaultTolerant:
    return dataclasses.replace(row, skipped=reason)
