"""Counts of a QAOA circuit for error correction: arbitrary rotations, CCZ gates, measurements.

Clifford gates (H, S, CX, CZ) are free with lattice surgery, and rotations by other angles are
synthesised from T gates. The circuits are those of :mod:`solvers.qaoa.circuit`:

- *Dicke state*, or *relaxation* with other angles: the circuit rotates pairs of qubits into each
  other, each by two rotations at the same time. With ``f = min(k, n - k)``, there are ``n - 1`` of
  them without a control and ``f(n - 1) - f(f - 1)/2 - (n - 1)`` with one, which are made of two.
- *Bit string* and *uniform superposition*: none.
- *Cost layer*: one rotation for each linear term and for each coupling.
- *Mixer of exchanges*: two commuting rotations, XX and YY, for each pair.
- *Penalty*: couplings of all pairs of a group; the X mixer has one rotation for each variable, or
  three after the start in the relaxation, which has one.

A few rotations by special angles, such as π/4, are counted like the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from problems import CardinalityQUBO
from solvers.readiness.logical import logical_circuit
from solvers.readiness.problem import Couplings

#: Rotation depth ``slope · n - offset`` of the Dicke state, for ``f = min(k, n - k)`` of 1, 2 and
#: 3; further rotations of a step run at the same time as those of the next.
_DICKE_DEPTH = {1: (1, 1), 2: (3, 5), 3: (4, 8)}
_DICKE_DEPTH_ABOVE = (5, 12)


@dataclass(frozen=True)
class LogicalCounts:
    """Operations of a circuit that cost something with error correction."""

    qubits: int
    rotations: int
    """Single-qubit rotations by arbitrary angles, after Clifford gates."""
    rotation_depth: int
    """Layers with at least one rotation."""
    t_gates: int = 0
    ccz_gates: int = 0
    """CCZ or Toffoli gates."""
    measurements: int = 0


def logical_counts(
    problem: CardinalityQUBO | Couplings,
    p: int = 1,
    start: str = "dicke",
    mixer: str = "ring",
    encoding: str = "cardinality",
) -> LogicalCounts:
    """Count the operations of a QAOA circuit, from formulas.

    Parameters
    ----------
    problem, p, start, mixer, encoding
        As for :func:`solvers.readiness.logical.logical_circuit`.

    Raises
    ------
    OptionError
        If a name is unknown, or does not belong to the encoding.
    """
    couplings = problem if isinstance(problem, Couplings) else Couplings.of(problem)
    circuit = logical_circuit(couplings, p, start, mixer, encoding)
    n, groups = couplings.n, list(zip(couplings.sizes, couplings.cardinalities, strict=True))
    warm, begin = start == "relaxation", (0, 0)
    if encoding == "penalty":
        couplings = couplings.penalised()
        begin, mixing = ((n, 1), (3 * n, 3)) if warm else ((0, 0), (n, 1))
    else:
        mixing = _beside([exchange_rotations(size, mixer) for size in couplings.sizes])
        if start != "status-quo":
            begin = _beside([dicke_rotations(size, k) for size, k in groups])
    pair_layers = circuit.cost.two_qubit_depth // 2  # a coupling is a rotation between two CX
    return LogicalCounts(
        qubits=n,
        rotations=begin[0] + p * (n + couplings.count + mixing[0]),
        rotation_depth=begin[1] + p * (1 + pair_layers + mixing[1]),
        measurements=n,
    )


def dicke_rotations(n: int, k: int) -> tuple[int, int]:
    """Return rotations and rotation depth of the Dicke state of n qubits with k ones."""
    fewer = min(k, n - k)
    if fewer == 0:
        return 0, 0
    controlled = fewer * (n - 1) - fewer * (fewer - 1) // 2 - (n - 1)
    slope, offset = _DICKE_DEPTH.get(fewer, _DICKE_DEPTH_ABOVE)
    return 2 * (n - 1) + 4 * controlled, slope * n - offset


def exchange_rotations(n: int, mixer: str) -> tuple[int, int]:
    """Return rotations and rotation depth of a mixer of exchanges in a group of n qubits."""
    if n < 2:
        return 0, 0
    if mixer == "complete":
        return n * (n - 1), n - 1 + n % 2
    return (2 * n, 2 + n % 2) if n > 2 else (2, 1)


def _beside(parts: list[tuple[int, int]]) -> tuple[int, int]:
    """Run parts on different qubits at the same time."""
    return sum(part[0] for part in parts), max((part[1] for part in parts), default=0)
