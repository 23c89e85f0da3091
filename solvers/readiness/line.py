"""QAOA on a line of qubits, with gates between neighbours alone.

Couplings and exchanges are merged with the swaps that bring their qubits together, which takes 3 CX
for any pair. Parts are written for a ``QuantumCircuit`` or a
:class:`solvers.readiness.counts.GateCounter`; qubits are positions on the line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from solvers.qaoa.circuit import exchange, givens, ring


def line_circuit(
    circuit: Any,
    Q: npt.NDArray[Any],
    members: Sequence[Sequence[int]],
    cardinalities: Sequence[int],
    *,
    start: Sequence[int] | None,
    mixer: str,
    gammas: Sequence[Any],
    betas: Sequence[Any],
) -> list[int]:
    """Write a QAOA circuit of the cardinality encoding on a line.

    With ``mixer="ring"`` it is the circuit of :func:`solvers.qaoa.circuit.cardinality_circuit`;
    with ``"complete"`` the exchanges come in another order.

    Parameters
    ----------
    circuit : QuantumCircuit or GateCounter
        With one qubit per variable.
    Q : ndarray, shape (n, n)
        Coefficients; zero couplings are left out.
    members : sequence of sequences of int
        Variables of each group.
    cardinalities : sequence of int
    start : sequence of int, optional
        Bit string to start from; the Dicke state of each group when omitted.
    mixer : {"ring", "complete"}
    gammas, betas : sequence of float or Parameter
        Angles, one of each per layer.

    Returns
    -------
    list of int
        The variable at each position, in the end.
    """
    order = [variable for group in members for variable in group]
    if start is not None:
        for position, variable in enumerate(order):
            if start[variable]:
                circuit.x(position)
    else:
        first = 0
        for group, k in zip(members, cardinalities, strict=True):
            dicke_line(circuit, first, len(group), int(k))
            first += len(group)
    for gamma, beta in zip(gammas, betas, strict=True):
        cost_line(circuit, order, Q, gamma)
        for group in members:
            if len(group) > 1:
                mix = ring_line if mixer == "ring" else complete_line
                mix(circuit, order, group, beta)
    return order


def dicke_line(circuit: Any, first: int, size: int, k: int) -> None:
    """Prepare the Dicke state of qubits next to each other (arXiv 1904.07358).

    The rotations of :func:`solvers.qaoa.circuit.dicke`, in the same order: the last qubit moves
    to the left through all others, and is rotated with each of its first neighbours as it
    passes it. The state is symmetric, so that the order of qubits does not matter in the end.
    """
    fewer, end = min(k, size - k), first + size - 1
    if fewer:
        for position in range(end - fewer + 1, end + 1):
            circuit.x(position)
        for last in range(size - 1, 0, -1):
            most = min(fewer, last)
            for ones in range(1, most + 1):
                at = end - ones + 1
                angle = 2 * math.acos(math.sqrt(ones / (last + 1)))
                if ones > 1:
                    angle /= 2
                    circuit.cz(at + 1, at)
                    givens(circuit, at, at - 1, -angle)
                    circuit.cz(at + 1, at)
                _givens_swap(circuit, at, at - 1, angle)
            for at in range(end - most, end - last, -1):
                _swap(circuit, at, at - 1)
    if fewer != k:
        for position in range(first, first + size):
            circuit.x(position)


def cost_line(circuit: Any, order: list[int], Q: npt.NDArray[Any], gamma: Any) -> None:
    """Apply ``exp(-iγ xᵀQx)`` in n layers of swaps, which reverse the line (arXiv 1711.04789)."""
    for position, variable in enumerate(order):
        circuit.rz(-gamma * float(Q[variable].sum()), position)
    for layer in range(len(order)):
        for i in range(layer % 2, len(order) - 1, 2):
            coupling = float(Q[order[i], order[i + 1]])
            circuit.cx(i, i + 1)
            if coupling:
                circuit.rz(gamma * coupling, i + 1)
            circuit.cx(i + 1, i)
            circuit.cx(i, i + 1)
            order[i], order[i + 1] = order[i + 1], order[i]


def complete_line(circuit: Any, order: list[int], group: Sequence[int], beta: Any) -> None:
    """Exchange all pairs of a group, in as many layers of swaps as it has variables."""
    first, size = min(map(order.index, group)), len(group)
    for layer in range(size):
        for i in range(first + layer % 2, first + size - 1, 2):
            _exchange_swap(circuit, i, i + 1, beta)
            order[i], order[i + 1] = order[i + 1], order[i]


def ring_line(circuit: Any, order: list[int], group: Sequence[int], beta: Any) -> None:
    """Exchange neighbours on a ring; both ends of the group meet in its middle, and go back."""
    at = {variable: position for position, variable in enumerate(order)}
    for a, b in ring(group):
        left, right = sorted((at[a], at[b]))
        steps = right - left - 1
        inward = [(left + i, left + i + 1) for i in range((steps + 1) // 2)]
        inward += [(right - i, right - i - 1) for i in range(steps // 2)]
        for i, j in inward:
            _swap(circuit, i, j)
        exchange(circuit, left + (steps + 1) // 2, right - steps // 2, beta)
        for i, j in reversed(inward):
            _swap(circuit, i, j)


def _swap(circuit: Any, i: int, j: int) -> None:
    circuit.cx(i, j)
    circuit.cx(j, i)
    circuit.cx(i, j)


def _exchange_swap(circuit: Any, i: int, j: int, beta: Any) -> None:
    """Exchange as :func:`solvers.qaoa.circuit.exchange`, then swap."""
    circuit.rx(-math.pi / 2, [i, j])
    circuit.cx(i, j)
    circuit.rx(-beta, i)
    circuit.rz(-beta, j)
    circuit.cx(j, i)
    circuit.cx(i, j)
    circuit.rx(math.pi / 2, [i, j])


def _givens_swap(circuit: Any, i: int, j: int, angle: float) -> None:
    """Rotate as :func:`solvers.qaoa.circuit.givens`, then swap."""
    circuit.h(i)
    circuit.cx(i, j)
    circuit.ry(angle / 2, [i, j])
    circuit.cx(j, i)
    circuit.cx(i, j)
    circuit.h(j)
