"""Circuits compiled for a processor by Qiskit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from solvers.errors import MissingBackendError
from solvers.readiness.lattice import edges, line
from solvers.readiness.line import line_circuit
from solvers.readiness.problem import Couplings
from solvers.readiness.target import TWO_QUBIT_GATES, GateTarget

#: Rotations of one qubit that are changes of a phase in software, without time or error.
VIRTUAL = frozenset({"rz", "z", "s", "sdg", "t", "tdg", "p", "u1"})


class Compiled(NamedTuple):
    """Native gates of a compiled circuit."""

    one_qubit: int
    """Pulses on one qubit."""
    two_qubit: int
    swaps: int
    """Swaps that were added, before they are merged with other gates."""
    two_qubit_depth: int
    seconds: float
    """Duration with readout."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit of the cardinality encoding; equal if its gates are, whatever their angles."""

    couplings: Couplings
    groups: Sequence[Sequence[int]]
    """Variables of each group."""
    p: int
    start: str
    mixer: str

    def _compared(self) -> tuple[Any, ...]:
        groups = tuple(map(tuple, self.groups))
        mask = self.couplings.mask.tobytes()
        return mask, groups, self.couplings.cardinalities, self.p, self.start, self.mixer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Circuit) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def build(self, on_line: bool) -> Any:
        """Return the circuit for Qiskit, with angles and couplings of no special value.

        A warm start differs from a Dicke state by its angles, and is built as one.
        """
        from qiskit import QuantumCircuit

        from solvers.qaoa.circuit import MIXERS, cost_layer, dicke, exchange

        n, mask = self.couplings.n, self.couplings.mask
        rng = np.random.default_rng(0)
        Q = np.triu(rng.uniform(0.1, 1, mask.shape), 1)
        Q = np.where(mask, Q + Q.T, 0) + np.diag(rng.uniform(0.1, 1, n))
        circuit = QuantumCircuit(n)
        if on_line:
            self.write_on_line(circuit, Q)
            circuit.measure_all()
            return circuit
        for members, k in zip(self.groups, self.couplings.cardinalities, strict=True):
            if self.start == "status-quo":
                for variable in members[:k]:
                    circuit.x(variable)
            elif members:
                dicke(circuit, members, k)
        for layer in range(self.p):
            cost_layer(circuit, Q, _angle(layer))
            for members in self.groups:
                for i, j in MIXERS[self.mixer](members):
                    exchange(circuit, i, j, _angle(layer + 0.5))
        circuit.measure_all()
        return circuit

    def write_on_line(self, circuit: Any, Q: Any) -> None:
        """Write the gates on a line of qubits into a circuit or a counter."""
        bits = None
        if self.start == "status-quo":
            bits = [0] * self.couplings.n
            for members, k in zip(self.groups, self.couplings.cardinalities, strict=True):
                for variable in members[:k]:
                    bits[variable] = 1
        line_circuit(
            circuit,
            Q,
            self.groups,
            self.couplings.cardinalities,
            start=bits,
            mixer=self.mixer,
            gammas=[_angle(layer) for layer in range(self.p)],
            betas=[_angle(layer + 0.5) for layer in range(self.p)],
        )


@lru_cache(maxsize=4096)
def compiled(circuit: Circuit, target: GateTarget, on_line: bool) -> Compiled:
    """Compile a circuit at Qiskit's highest level, with a fixed seed.

    Parameters
    ----------
    circuit : Circuit
    target : GateTarget
    on_line : bool
        Whether to place it on a line of qubits with a network of swaps, or let Qiskit route it.

    Raises
    ------
    MissingBackendError
        If Qiskit is not installed.
    """
    try:
        from qiskit.transpiler import generate_preset_pass_manager
    except ImportError as error:
        raise MissingBackendError(
            f"compiling circuits needs {error.name or error}: pip install qiskit"
        ) from error
    n = circuit.couplings.n
    backend = _backend(target, n if target.topology == "all-to-all" else None)
    manager = generate_preset_pass_manager(
        3, target=backend, seed_transpiler=0, initial_layout=line(target)[:n] if on_line else None
    )
    swaps = circuit.p * n * (n - 1) // 2 if on_line else 0

    def watch(**step: Any) -> None:
        nonlocal swaps
        if not on_line and "Sabre" in type(step["pass_"]).__name__:
            swaps = max(swaps, step["dag"].count_ops().get("swap", 0))

    done = manager.run(circuit.build(on_line), callback=watch)
    one = two = 0
    for name, count in done.count_ops().items():
        if name in TWO_QUBIT_GATES:
            two += count
        elif name not in VIRTUAL and name not in ("barrier", "measure"):
            one += count
    depth = done.depth(lambda item: item.operation.name in TWO_QUBIT_GATES)
    return Compiled(one, two, swaps, depth, float(done.estimate_duration(backend)))


def _angle(layer: float) -> float:
    """Return an angle that no gate is special at."""
    return 0.3 + 0.11 * layer


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
