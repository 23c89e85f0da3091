"""Gates of QAOA circuits by formulas, at any n, after decomposition into CX, CZ and rotations.

The circuits are those of :mod:`solvers.qaoa.circuit`. With f = min(k, n - k) of each group:

- *Dicke state*, or *relaxation* with other angles: ``B = f(n - 1) - f(f - 1)/2`` rotations of two
  qubits into each other, of which the ``n - 1`` without a control take 2 CX each and the others
  4 CX and 2 CZ;
- *status quo* (or any bit string): one X for each 1, and no gate on two qubits;
- *cost*: 2 CX for each coupled pair, n - 1 layers of pairs (n for odd n) if all are coupled;
- *penalty*: one rotation of each qubit as the start, and one (three, about the axis of a warm
  start) as the mixer, and the couplings of all pairs of a group;
- *mixer of exchanges*: 2 CX a pair, n pairs on a ring and n(n - 1)/2 of all with all;
- on a line of qubits, all pairs meet in n layers of swaps: 3 CX a pair with the rotation included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.errors import OptionError
from solvers.readiness.counts import GateCount
from solvers.readiness.problem import Couplings

#: Starts and mixers of each encoding.
STARTS = {
    "cardinality": ("dicke", "status-quo", "relaxation"),
    "penalty": ("uniform", "status-quo", "relaxation"),
}
MIXERS = {"cardinality": ("ring", "complete"), "penalty": ("x",)}


@dataclass(frozen=True)
class LogicalCircuit:
    """Gates of a circuit on qubits that are all coupled (part 2 of an assessment)."""

    p: int
    """Layers of QAOA."""
    encoding: str
    """``"cardinality"``: only feasible states are reached; ``"penalty"``: all are."""
    start: str
    """Initial state."""
    mixer: str
    qubits: int
    preparation: GateCount
    """Gates of the initial state."""
    cost: GateCount
    """Gates of the cost, per layer."""
    mixing: GateCount
    """Gates of the mixer, per layer."""
    line_cost: GateCount
    """Gates of the cost per layer, on a line of qubits with a network of swaps."""
    skipped: str = ""

    @property
    def total(self) -> GateCount:
        """All gates: the preparation, and p times cost and mixer."""
        return self.preparation + (self.cost + self.mixing) * self.p


def logical_circuit(
    problem: CardinalityQUBO | Couplings,
    p: int = 1,
    start: str = "dicke",
    mixer: str = "ring",
    encoding: str = "cardinality",
) -> LogicalCircuit:
    """Count the gates of a QAOA circuit, without building it.

    Parameters
    ----------
    problem : CardinalityQUBO or Couplings
        Couplings that are computed once serve any number of calls.
    p : int
        Layers.
    start : str
        ``"dicke"``, ``"status-quo"`` (any bit string) or ``"relaxation"`` (a warm start) in the
        cardinality encoding; ``"uniform"``, ``"status-quo"`` or ``"relaxation"`` in the penalty
        encoding; see :mod:`solvers.qaoa.start`.
    mixer : str
        ``"ring"`` or ``"complete"`` in the cardinality encoding, ``"x"`` in the penalty encoding.
    encoding : {"cardinality", "penalty"}

    Raises
    ------
    OptionError
        If a name is unknown, or does not belong to the encoding.
    """
    check_circuit(p, start, mixer, encoding)
    couplings = problem if isinstance(problem, Couplings) else Couplings.of(problem)
    n, parts = couplings.n, list(zip(couplings.sizes, couplings.cardinalities, strict=True))
    if encoding == "penalty":
        couplings = couplings.penalised()
        preparation = GateCount(sum(couplings.cardinalities) if start == "status-quo" else n)
        mixing = GateCount(3 * n if start == "relaxation" else n)
    else:
        prepare = dicke_count if start != "status-quo" else lambda size, k: GateCount(k)
        preparation = _beside([prepare(size, k) for size, k in parts])
        mixing = _beside([mixer_count(size, mixer) for size, _ in parts])
    return LogicalCircuit(
        p=p,
        encoding=encoding,
        start=start,
        mixer=mixer,
        qubits=n,
        preparation=preparation,
        cost=GateCount(n + couplings.count, 2 * couplings.count, 2 * _layers(couplings.mask)),
        mixing=mixing,
        line_cost=line_cost_count(n, couplings.count),
    )


def check_circuit(p: int, start: str, mixer: str, encoding: str) -> None:
    """Check the choices of a circuit.

    Raises
    ------
    OptionError
        If a name is unknown, or does not belong to the encoding.
    """
    if encoding not in STARTS:
        raise OptionError(f"encoding is {encoding!r}; it must be one of {', '.join(STARTS)}")
    if start not in STARTS[encoding]:
        known = ", ".join(STARTS[encoding])
        raise OptionError(f"start is {start!r}; with the encoding {encoding}: {known}")
    if mixer not in MIXERS[encoding]:
        known = ", ".join(MIXERS[encoding])
        raise OptionError(f"mixer is {mixer!r}; with the encoding {encoding}: {known}")
    if p < 1:
        raise OptionError(f"p is {p}; it must be 1 or more")


def dicke_count(n: int, k: int) -> GateCount:
    """Count the gates of a Dicke state of n qubits with k ones (arXiv 1904.07358).

    The depth is that of rows of rotations which follow each other at a constant distance.
    """
    fewer = min(k, n - k)
    flips = fewer + (n if fewer != k else 0)
    if not fewer:
        return GateCount(flips)
    rotations = fewer * (n - 1) - fewer * (fewer - 1) // 2
    controlled = rotations - (n - 1)
    slope, offset = {1: (2, 2), 2: (8, 14), 3: (12, 26)}.get(fewer, (15, 38))
    return GateCount(
        one_qubit=flips + 4 * (n - 1) + 8 * controlled,
        two_qubit=2 * (n - 1) + 6 * controlled,
        two_qubit_depth=slope * n - offset,
    )


def mixer_count(n: int, mixer: str) -> GateCount:
    """Count the gates of a mixer of exchanges in a group of n qubits."""
    if n < 2:
        return GateCount()
    if mixer == "ring":
        pairs, layers = (n, 2 + n % 2) if n > 2 else (1, 1)
    else:
        pairs, layers = n * (n - 1) // 2, n - 1 + n % 2
    return GateCount(one_qubit=6 * pairs, two_qubit=2 * pairs, two_qubit_depth=2 * layers)


def line_cost_count(n: int, couplings: int) -> GateCount:
    """Count the gates of the cost on a line, where n layers of swaps let all pairs meet.

    A swap takes 3 CX, with a rotation by the coupling of the pair or without one.
    """
    pairs = n * (n - 1) // 2
    depth = 3 * n if n > 2 else 3 * (n - 1)
    return GateCount(one_qubit=n + couplings, two_qubit=3 * pairs, two_qubit_depth=depth)


def _beside(parts: list[GateCount]) -> GateCount:
    """Run parts on different qubits at the same time."""
    return GateCount(
        sum(part.one_qubit for part in parts),
        sum(part.two_qubit for part in parts),
        max((part.two_qubit_depth for part in parts), default=0),
    )


def _layers(mask: npt.NDArray[np.bool_]) -> int:
    """Return the layers of the coupled pairs, each in the first one in which its qubits are free.

    Pairs come in the order of :func:`solvers.qaoa.circuit.complete`.
    """
    n = len(mask)
    seats = n + n % 2
    layers = np.zeros(n, dtype=np.int64)
    others = np.arange(1, seats)
    for turn in range(seats - 1):
        row = np.concatenate([[0], np.roll(others, turn)])
        a, b = row[: seats // 2], row[::-1][: seats // 2]
        present = (a < n) & (b < n)
        a, b = a[present], b[present]
        coupled = mask[a, b]
        a, b = a[coupled], b[coupled]
        layers[a] = layers[b] = np.maximum(layers[a], layers[b]) + 1
    return int(layers.max(initial=0))
