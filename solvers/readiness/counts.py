"""Counts of gates, and a stand-in for a circuit that only counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GateCount:
    """Gates of a part of a circuit, in the basis of CX, CZ and rotations of one qubit."""

    one_qubit: int = 0
    """Rotations of one qubit by any angles."""
    two_qubit: int = 0
    """CX and CZ."""
    two_qubit_depth: int = 0
    """Layers of gates on two qubits, if the part is run alone."""

    def __add__(self, other: GateCount) -> GateCount:
        """Run one part after the other; layers do not overlap."""
        return GateCount(
            self.one_qubit + other.one_qubit,
            self.two_qubit + other.two_qubit,
            self.two_qubit_depth + other.two_qubit_depth,
        )

    def __mul__(self, times: int) -> GateCount:
        """Repeat a part."""
        return GateCount(
            self.one_qubit * times, self.two_qubit * times, self.two_qubit_depth * times
        )


class GateCounter:
    """Counts gates through those methods of a ``QuantumCircuit`` that circuits here call."""

    def __init__(self, qubits: int) -> None:
        self.one_qubit = self.two_qubit = 0
        self.layers = [0] * qubits

    def _rotate(self, qubits: int | Iterable[int]) -> None:
        self.one_qubit += 1 if isinstance(qubits, int) else len(list(qubits))

    def h(self, qubits: Any) -> None:
        """Count a gate on each of the qubits."""
        self._rotate(qubits)

    x = h

    def rx(self, angle: Any, qubits: Any) -> None:
        """Count a rotation of each of the qubits."""
        self._rotate(qubits)

    ry = rz = rx

    def cx(self, a: int, b: int) -> None:
        """Count a gate on two qubits."""
        self.two_qubit += 1
        self.layers[a] = self.layers[b] = max(self.layers[a], self.layers[b]) + 1

    cz = cx

    @property
    def count(self) -> GateCount:
        """Gates until now."""
        return GateCount(self.one_qubit, self.two_qubit, max(self.layers, default=0))
