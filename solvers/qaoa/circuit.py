"""Circuits of both forms: initial state, cost layer, mixer and measurement.

Qubit ``i`` is variable ``i``. One pair ``(i, j)`` of the mixer is ``exp(iβ(XX + YY)/2)``,
which exchanges a one and a zero and so preserves the number of ones; the penalty form mixes with
``exp(iβX)`` on each qubit, or about the axis of its initial state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.qaoa.start import Start

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

Pair = tuple[int, int]


def ring(members: Sequence[int]) -> list[Pair]:
    """Pair neighbours on a ring, even pairs before odd ones: depth 2 (3 for odd sizes)."""
    size = len(members)
    if size < 3:
        return [(members[0], members[1])] if size == 2 else []
    starts = [*range(0, size - 1, 2), *range(1, size - 1, 2), size - 1]
    return [(members[i], members[(i + 1) % size]) for i in starts]


def complete(members: Sequence[int]) -> list[Pair]:
    """Pair all with all, in rounds of disjoint pairs: depth ``size - 1`` or ``size``."""
    seats: list[int | None] = list(members)
    if len(seats) % 2:
        seats.append(None)
    pairs = []
    for _ in range(len(seats) - 1):
        for a, b in zip(seats[: len(seats) // 2], reversed(seats), strict=False):
            if a is not None and b is not None:
                pairs.append((a, b))
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return pairs


#: Mixers of the cardinality form: ordered pairs of a group that are exchanged.
MIXERS = {"ring": ring, "complete": complete}


def mixer_pairs(problem: CardinalityQUBO, mixer: str) -> list[Pair]:
    """Return the pairs of all groups that the mixer exchanges, in the order of its gates."""
    mix = MIXERS[mixer]
    return [pair for members in problem.group_members for pair in mix(members.tolist())]


def mixer_degree(problem: CardinalityQUBO, mixer: str) -> float:
    """Return the mean number of the mixer's gates on a qubit, per layer."""
    return 2 * len(mixer_pairs(problem, mixer)) / problem.n


def dicke(
    circuit: QuantumCircuit,
    qubits: Sequence[int],
    k: int,
    odds: npt.NDArray[np.float64] | None = None,
) -> None:
    """Transform qubits from all 0 to a superposition of all states with ``k`` ones.

    The deterministic circuit of Bärtschi and Eidenbenz (arXiv 1904.07358), with O(kn) gates and
    without ancillas; for ``k > n/2`` that of ``n - k``, with all qubits flipped. The superposition
    is uniform, or that of independent bits conditioned on their sum: the same gates, with other
    angles.

    Parameters
    ----------
    circuit : QuantumCircuit
    qubits : sequence of int
    k : int
    odds : ndarray of float64, shape (len(qubits),), optional
        Ratio of the probabilities of 1 and 0 of each qubit alone, positive.
    """
    n = len(qubits)
    fewer = min(k, n - k)
    q = list(qubits)
    share: Callable[[int, int], float] = _uniform_share
    if odds is not None:
        share = _conditional_share(np.asarray(odds) ** (1 if fewer == k else -1), fewer)
    for i in range(n - fewer, n):
        circuit.x(q[i])
    for last in range(n - 1, 0, -1):
        # Split off the last qubit: with `last + 1` qubits and up to `most` ones on them.
        most = min(fewer, last)
        for ones in range(1, most + 1):
            target = last - ones
            angle = 2 * math.acos(math.sqrt(share(last, ones)))
            if ones == 1:
                givens(circuit, q[last], q[target], angle)
                continue
            # Controlled by the neighbour of the target, whose phase turns the rotation around.
            for part in (-angle / 2, angle / 2):
                circuit.cz(q[target + 1], q[last])
                givens(circuit, q[last], q[target], part)
    if fewer != k:
        circuit.x(q)


def _uniform_share(last: int, ones: int) -> float:
    """Return the probability of a 1 on qubit ``last``, given the ones up to it."""
    return ones / (last + 1)


def _conditional_share(weights: npt.NDArray[np.float64], most: int) -> Callable[[int, int], float]:
    """Return the like of :func:`_uniform_share` for independent bits with these odds.

    Sums over all states with d ones are elementary symmetric polynomials ``e_d`` of the weights.
    """
    scaled = weights / np.exp(np.log(weights).mean())  # which no share depends on
    sums = np.zeros((len(scaled) + 1, most + 1))  # e_d of the first m at [m, d]
    sums[:, 0] = 1
    for m, weight in enumerate(scaled, start=1):
        sums[m, 1:] = sums[m - 1, 1:] + weight * sums[m - 1, :-1]

    def share(last: int, ones: int) -> float:
        ratio = scaled[last] * sums[last, ones - 1] / sums[last + 1, ones]
        return min(1.0, float(ratio))

    return share


def givens(circuit: QuantumCircuit, i: int, j: int, angle: float) -> None:
    """Rotate the states 01 and 10 of two qubits into each other, with two CX and four rotations."""
    circuit.h(i)
    circuit.cx(i, j)
    circuit.ry(angle / 2, [i, j])
    circuit.cx(i, j)
    circuit.h(i)


def exchange(circuit: QuantumCircuit, i: int, j: int, beta: Any) -> None:
    """Apply ``exp(iβ(XX + YY)/2)`` by two CX and six rotations.

    Rotations about X turn YY into ZZ, and between two CX both terms act on one qubit each.
    """
    circuit.rx(-math.pi / 2, [i, j])
    circuit.cx(i, j)
    circuit.rx(-beta, i)
    circuit.rz(-beta, j)
    circuit.cx(i, j)
    circuit.rx(math.pi / 2, [i, j])


def cost_layer(circuit: QuantumCircuit, Q: npt.NDArray[np.float64], gamma: Any) -> None:
    """Apply ``exp(-iγ xᵀQx)`` up to a global phase, with ``x = (1 - Z)/2``."""
    n = len(Q)
    for i in range(n):
        circuit.rz(-gamma * float(Q[i].sum()), i)
    for i, j in complete(range(n)):
        if Q[i, j]:
            circuit.rzz(gamma * float(Q[i, j]), i, j)


def cardinality_circuit(
    problem: CardinalityQUBO, scale: float, p: int, mixer: str, start: Start | None = None
) -> QuantumCircuit:
    """Build the circuit of the cardinality form, with parameters ``γ₁ … γ_p, β₁ … β_p``.

    Each group is mixed by exchanges within it (the quantum alternating operator ansatz, arXiv
    1709.03489).

    Parameters
    ----------
    problem : CardinalityQUBO
    scale : float
        Unit of energies, by which the coefficients are divided.
    p : int
        Layers.
    mixer : {"complete", "ring"}
    start : Start, optional
        Initial state; the Dicke state of each group if omitted.
    """
    circuit, gammas, betas = _empty(problem.n, p)
    start = start or Start()
    if start.state is not None:
        for qubit in np.flatnonzero(start.state).tolist():
            circuit.x(qubit)
    else:
        for members, k in zip(problem.group_members, problem.cardinalities.tolist(), strict=True):
            if len(members):
                odds = None if start.odds is None else start.odds[members]
                dicke(circuit, members.tolist(), k, odds)
    pairs = mixer_pairs(problem, mixer)
    Q = problem.Q.astype(np.float64) / scale
    for gamma, beta in zip(gammas, betas, strict=True):
        cost_layer(circuit, Q, gamma)
        for i, j in pairs:
            exchange(circuit, i, j, beta)
    circuit.measure_all()
    return circuit


def penalty_circuit(
    form: CardinalityQUBO, scale: float, p: int, start: Start | None = None
) -> QuantumCircuit:
    """Build the circuit of the penalty form, which starts in the uniform superposition.

    The mixer is that of X. With the odds of a warm start, each qubit starts in its own state
    ``RY(θ)|0⟩`` and turns about that state's axis (arXiv 2009.10095, section 3).
    """
    circuit, gammas, betas = _empty(form.n, p)
    start = start or Start()
    tilts = None if start.odds is None else start.tilts.tolist()
    if start.state is not None:
        for qubit in np.flatnonzero(start.state).tolist():
            circuit.x(qubit)
    elif tilts is None:
        circuit.h(range(form.n))
    else:
        for qubit, tilt in enumerate(tilts):
            circuit.ry(tilt, qubit)
    Q = form.Q.astype(np.float64) / scale
    for gamma, beta in zip(gammas, betas, strict=True):
        cost_layer(circuit, Q, gamma)
        if tilts is None:
            circuit.rx(-2 * beta, range(form.n))
            continue
        for qubit, tilt in enumerate(tilts):
            circuit.ry(-tilt, qubit)
            circuit.rz(-2 * beta, qubit)
            circuit.ry(tilt, qubit)
    circuit.measure_all()
    return circuit


def circuit_metrics(circuit: QuantumCircuit) -> dict[str, int]:
    """Return width, depth and gate counts of a circuit."""
    gates = [item for item in circuit.data if item.operation.name not in ("barrier", "measure")]
    return {
        "qubits": len({qubit for item in gates for qubit in item.qubits}),
        "depth": circuit.depth(),
        "gates": len(gates),
        "two_qubit_gates": sum(len(item.qubits) == 2 for item in gates),
    }


def _empty(n: int, p: int) -> tuple[QuantumCircuit, Any, Any]:
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector

    # Parameters are bound in the order of their names, where beta would precede gamma: number them.
    angles = ParameterVector("angle", 2 * p)
    return QuantumCircuit(n), angles[:p], angles[p:]
