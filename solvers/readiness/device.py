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

from problems import CardinalityQUBO
from solvers.readiness.compiled import Circuit, compiled
from solvers.readiness.counts import GateCounter
from solvers.readiness.lattice import line
from solvers.readiness.logical import LogicalCircuit, check_circuit, logical_circuit
from solvers.readiness.problem import Couplings
from solvers.readiness.target import GateTarget

#: Largest n of circuits that are compiled.
TRANSPILED_N = 32
#: Density of couplings from which on only the line is tried: nothing else came close to it.
DENSE = 0.7


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
    groups = tuple(tuple(members.tolist()) for members in problem.group_members)
    empty = DeviceCircuit(target.name, p, start, mixer, known.n)
    if known.n > target.qubits:
        reason = f"{known.n} qubits are needed; {target.name} has {target.qubits}"
        return replace(empty, skipped=reason)
    if known.n > TRANSPILED_N:
        return counted(empty, target, known, groups)
    circuit = Circuit(known, groups, p, start, mixer)
    has_line = target.topology != "all-to-all" and len(line(target)) >= known.n
    found = [_compiled(empty, target, circuit, on_line=True)] if has_line else []
    if not found or known.density < DENSE:
        found.append(_compiled(empty, target, circuit, on_line=False))
    return max(found, key=_order)


def _order(circuit: DeviceCircuit) -> float:
    return -math.inf if circuit.log10_success is None else circuit.log10_success


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
        circuit = Circuit(couplings, groups, empty.p, empty.start, empty.mixer)
        circuit.write_on_line(counter, couplings.mask)
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
    empty: DeviceCircuit, target: GateTarget, circuit: Circuit, on_line: bool
) -> DeviceCircuit:
    done = compiled(circuit, target, on_line)
    method = "compiled on a line" if on_line else "compiled"
    return _figures(
        *(empty, target, method, done.one_qubit, done.two_qubit),
        *(done.swaps, done.two_qubit_depth, done.seconds),
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
