"""Circuits on processors without error correction: gates, duration and success.

Up to n = 32 circuits are compiled by Qiskit at its highest level; on processors that are not fully
coupled also on a line of qubits (:mod:`solvers.readiness.line`), and the one that succeeds more
often is reported (the line alone where most pairs are coupled). Beyond that, gates are counted on
the line, or those of the circuit where all qubits are coupled: an upper bound, since a compiler
may merge some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from problems import CardinalityQUBO
from solvers.errors import MissingBackendError
from solvers.readiness.counts import GateCounter
from solvers.readiness.lattice import edges, line
from solvers.readiness.line import line_circuit
from solvers.readiness.logical import LogicalCircuit, check_circuit, logical_circuit
from solvers.readiness.problem import Couplings
from solvers.readiness.target import TWO_QUBIT_GATES, GateTarget

#: Largest n of circuits that are compiled.
TRANSPILED_N = 32
#: Density of couplings from which on only the line is tried: nothing else came close to it.
DENSE = 0.7
#: Rotations of one qubit that are changes of a phase in software, without time or error.
VIRTUAL = frozenset({"rz", "z", "s", "sdg", "t", "tdg", "p", "u1"})


@dataclass(frozen=True)
class DeviceCircuit:
    """A circuit on a processor (part 3 of an assessment)."""

    target: str
    p: int
    """Layers of QAOA."""
    start: str
    mixer: str
    qubits: int
    """Qubits that are used."""
    method: str = ""
    """``"compiled"``, ``"compiled on a line"``, ``"counted on a line"`` or ``"counted"``."""
    one_qubit_gates: int | None = None
    """Pulses on one qubit; changes of phase in software are not counted."""
    two_qubit_gates: int | None = None
    """Native gates on two qubits, those of swaps included."""
    swaps: int | None = None
    """Swaps added for qubits that are not coupled, before they are merged with other gates."""
    two_qubit_depth: int | None = None
    """Layers of gates on two qubits."""
    duration: float | None = None
    """Seconds of one shot, with readout, without reset."""
    duration_t1: float | None = None
    """Duration over the relaxation time T1."""
    duration_t2: float | None = None
    """Duration over the dephasing time T2."""
    log10_success: float | None = None
    """Logarithm to base 10 of ``Π(1 - ε)`` over all gates and readouts: the probability of a shot
    without any error, if errors were independent; idle qubits are not included."""
    skipped: str = ""
    """Reason why there are no figures; empty if there are."""

    @property
    def success(self) -> float | None:
        """Probability of a shot without any error; 0 if it is below the smallest number."""
        return None if self.log10_success is None else float(10.0**self.log10_success)


def device_circuit(
    problem: CardinalityQUBO,
    target: GateTarget,
    p: int = 1,
    start: str = "dicke",
    mixer: str = "ring",
    couplings: Couplings | None = None,
) -> DeviceCircuit:
    """Compile or count a circuit of the cardinality encoding.

    Parameters
    ----------
    problem : CardinalityQUBO
    target : GateTarget
    p : int
        Layers.
    start : {"dicke", "status-quo", "relaxation"}
    mixer : {"ring", "complete"}
    couplings : Couplings, optional
        Those of the problem, if they are known already.

    Raises
    ------
    OptionError
        If a name is unknown.
    MissingBackendError
        If Qiskit is not installed.
    """
    check_circuit(p, start, mixer, "cardinality")
    known = Couplings.of(problem) if couplings is None else couplings
    key = (known.mask.tobytes() if known.n <= TRANSPILED_N else b"", known.n, known.count)
    groups = tuple(tuple(members.tolist()) for members in problem.group_members)
    return _device_circuit(_Case(key, known, groups), target, p, start, mixer)


@dataclass(frozen=True, eq=False)
class _Case:
    """A problem as far as circuits depend on it; equal for problems of the same structure."""

    key: tuple[bytes, int, int]
    couplings: Couplings
    groups: tuple[tuple[int, ...], ...]

    def _compared(self) -> tuple[Any, ...]:
        return self.key, self.groups, self.couplings.cardinalities

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Case) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())


@lru_cache(maxsize=4096)
def _device_circuit(
    case: _Case, target: GateTarget, p: int, start: str, mixer: str
) -> DeviceCircuit:
    n = case.couplings.n
    empty = DeviceCircuit(target.name, p, start, mixer, n)
    if n > target.qubits:
        return replace(empty, skipped=f"{n} qubits are needed; {target.name} has {target.qubits}")
    if n > TRANSPILED_N:
        return counted(empty, target, case.couplings, case.groups)
    has_line = target.topology != "all-to-all" and len(line(target)) >= n
    found = [_compiled(empty, target, case, on_line=True)] if has_line else []
    if not found or case.couplings.density < DENSE:
        found.append(_compiled(empty, target, case))
    return max(found, key=lambda circuit: circuit.log10_success or -math.inf)


def counted(
    empty: DeviceCircuit,
    target: GateTarget,
    couplings: Couplings,
    groups: Sequence[Sequence[int]],
) -> DeviceCircuit:
    """Count the gates of a circuit that is not compiled.

    Each gate on two qubits is taken to need two pulses on one qubit, as compiled circuits do.
    """
    if target.topology == "all-to-all":
        logical = logical_circuit(couplings, empty.p, empty.start, empty.mixer)
        two, depth, method, swaps = *_native(logical, target), "counted", 0
    elif len(line(target)) < couplings.n:
        known = len(line(target))
        reason = (
            f"the longest line of qubits known in {target.name} has {known}"
            if known
            else f"circuits of more than {TRANSPILED_N} qubits are only counted on known lattices"
        )
        return replace(empty, skipped=reason)
    else:
        counter = GateCounter(couplings.n)
        _write_line(counter, couplings.mask, couplings, groups, empty)
        two, depth = counter.count.two_qubit, counter.count.two_qubit_depth
        swaps, method = empty.p * couplings.n * (couplings.n - 1) // 2, "counted on a line"
    seconds = depth * (target.two_qubit_time + 2 * target.one_qubit_time) + target.readout_time
    return _figures(empty, target, method, 2 * two, two, swaps, depth, seconds)


def _native(logical: LogicalCircuit, target: GateTarget) -> tuple[int, int]:
    """Return gates on two qubits and their layers where all qubits are coupled.

    A native rotation of ZZ replaces the two CX of a coupling.
    """
    total, saved = logical.total, logical.cost * logical.p
    if "rzz" not in target.basis_gates:
        return total.two_qubit, total.two_qubit_depth
    return (
        total.two_qubit - saved.two_qubit // 2,
        total.two_qubit_depth - saved.two_qubit_depth // 2,
    )


def _compiled(
    empty: DeviceCircuit, target: GateTarget, case: _Case, on_line: bool = False
) -> DeviceCircuit:
    try:
        from qiskit.transpiler import generate_preset_pass_manager
    except ImportError as error:
        raise MissingBackendError(
            f"compiling circuits needs {error.name or error}: pip install qiskit"
        ) from error
    backend = _backend(target, case.couplings.n if target.topology == "all-to-all" else None)
    circuit = _circuit(empty, case, on_line)
    place = line(target)[: case.couplings.n] if on_line else None
    manager = generate_preset_pass_manager(
        3, target=backend, seed_transpiler=0, initial_layout=place
    )
    swaps = 0

    def watch(**step: Any) -> None:
        nonlocal swaps
        if "Sabre" in type(step["pass_"]).__name__:
            swaps = max(swaps, step["dag"].count_ops().get("swap", 0))

    done = manager.run(circuit, callback=watch)
    one = two = 0
    for name, count in done.count_ops().items():
        if name in TWO_QUBIT_GATES:
            two += count
        elif name not in VIRTUAL and name not in ("barrier", "measure"):
            one += count
    if on_line:
        n = case.couplings.n
        swaps = empty.p * n * (n - 1) // 2
    depth = done.depth(lambda item: item.operation.name in TWO_QUBIT_GATES)
    method = "compiled on a line" if on_line else "compiled"
    seconds = done.estimate_duration(backend)
    return _figures(empty, target, method, one, two, swaps, depth, seconds)


def _circuit(empty: DeviceCircuit, case: _Case, on_line: bool) -> Any:
    """Build the circuit with angles and couplings of no special value."""
    from qiskit import QuantumCircuit

    from solvers.qaoa.circuit import MIXERS, cost_layer, dicke, exchange

    couplings = case.couplings
    rng = np.random.default_rng(0)
    Q = np.triu(rng.uniform(0.1, 1, couplings.mask.shape), 1)
    Q = np.where(couplings.mask, Q + Q.T, 0) + np.diag(rng.uniform(0.1, 1, couplings.n))
    circuit = QuantumCircuit(couplings.n)
    if on_line:
        _write_line(circuit, Q, couplings, case.groups, empty)
    else:
        if empty.start != "status-quo":  # a warm start differs from a Dicke state by its angles
            for members, k in zip(case.groups, couplings.cardinalities, strict=True):
                if members:
                    dicke(circuit, members, k)
        else:
            for members, k in zip(case.groups, couplings.cardinalities, strict=True):
                for variable in members[:k]:
                    circuit.x(variable)
        for layer in range(empty.p):
            cost_layer(circuit, Q, _angle(layer))
            for members in case.groups:
                for i, j in MIXERS[empty.mixer](members):
                    exchange(circuit, i, j, _angle(layer + 0.5))
    circuit.measure_all()
    return circuit


def _angle(layer: float) -> float:
    """Return an angle that no gate is special at."""
    return 0.3 + 0.11 * layer


def _write_line(
    circuit: Any,
    Q: Any,
    couplings: Couplings,
    groups: Sequence[Sequence[int]],
    empty: DeviceCircuit,
) -> None:
    bits = None
    if empty.start == "status-quo":
        bits = [0] * couplings.n
        for members, k in zip(groups, couplings.cardinalities, strict=True):
            for variable in members[:k]:
                bits[variable] = 1
    line_circuit(
        circuit,
        Q,
        groups,
        couplings.cardinalities,
        start=bits,
        mixer=empty.mixer,
        gammas=[_angle(layer) for layer in range(empty.p)],
        betas=[_angle(layer + 0.5) for layer in range(empty.p)],
    )


def _figures(
    empty: DeviceCircuit,
    target: GateTarget,
    method: str,
    one: int,
    two: int,
    swaps: int,
    depth: int,
    seconds: float,
) -> DeviceCircuit:
    """Add what follows from the counts."""
    log_success = (
        one * math.log1p(-target.one_qubit_error)
        + two * math.log1p(-target.two_qubit_error)
        + empty.qubits * math.log1p(-target.readout_error)
    )
    return replace(
        empty,
        method=method,
        one_qubit_gates=one,
        two_qubit_gates=two,
        swaps=swaps,
        two_qubit_depth=depth,
        duration=seconds,
        duration_t1=seconds / target.t1,
        duration_t2=seconds / target.t2,
        log10_success=log_success / math.log(10),
    )


@cache
def _backend(target: GateTarget, qubits: int | None) -> Any:
    """Return the processor as Qiskit's ``Target``, with durations and errors."""
    from qiskit.circuit import Measure, Parameter
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.transpiler import InstructionProperties, Target

    count = qubits or target.qubits
    gates = get_standard_gate_name_mapping()
    found = Target(num_qubits=count)
    single = {
        False: InstructionProperties(target.one_qubit_time, target.one_qubit_error),
        True: InstructionProperties(0.0, 0.0),
    }
    double = InstructionProperties(target.two_qubit_time, target.two_qubit_error)
    pairs = [pair for a, b in edges(target, qubits) for pair in ((a, b), (b, a))]
    for name in target.basis_gates:
        gate = gates[name]
        parameters = [Parameter(f"angle{i}") for i in range(len(gate.params))]
        gate = type(gate)(*parameters) if parameters else gate
        if name in TWO_QUBIT_GATES:
            found.add_instruction(gate, dict.fromkeys(pairs, double))
        else:
            each = dict.fromkeys([(i,) for i in range(count)], single[name in VIRTUAL])
            found.add_instruction(gate, each)
    readout = InstructionProperties(target.readout_time, target.readout_error)
    found.add_instruction(Measure(), dict.fromkeys([(i,) for i in range(count)], readout))
    return found
