"""Counts of a QAOA circuit for error correction: arbitrary rotations, CCZ gates, measurements.

Clifford gates (H, S, CX, CZ) are free with lattice surgery; arbitrary rotations are synthesised
from T gates. The circuits are those of :mod:`solvers.qaoa`:

- *Cost layer*: one rotation for each linear term and for each coupling.
- *Exchange mixers*: two commuting rotations, XX and YY, for each pair.
- *X mixer*: one for each variable.
- *Dicke start* (Bärtschi and Eidenbenz, arXiv 1904.07358): a controlled RY is two rotations, one
  with two controls two rotations and two Toffoli gates.
- A bit string or a uniform superposition needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from problems import CardinalityQUBO
from solvers.errors import OptionError

Start = Literal["dicke", "bits", "uniform"]
Mixer = Literal["ring", "complete", "x"]

STARTS: tuple[Start, ...] = ("dicke", "bits", "uniform")
MIXERS: tuple[Mixer, ...] = ("ring", "complete", "x")


@dataclass(frozen=True)
class LogicalCounts:
    """Operations of a circuit that cost something with error correction."""

    qubits: int
    rotations: int
    """Single-qubit rotations by arbitrary angles, after Clifford gates."""
    rotation_depth: int
    """Layers with at least one rotation; an upper bound where couplings are sparse."""
    t_gates: int = 0
    ccz_gates: int = 0
    """CCZ or Toffoli gates."""
    measurements: int = 0


def logical_counts(
    problem: CardinalityQUBO, p: int, start: Start = "dicke", mixer: Mixer = "ring"
) -> LogicalCounts:
    """Count the operations of a QAOA circuit, from formulas.

    Parameters
    ----------
    problem : CardinalityQUBO
        Couplings of 0 are left out; with the X mixer, those of the penalty are counted.
    p : int
        Layers, at least 1.
    start : {"dicke", "bits", "uniform"}
        Feasible states with equal amplitudes; one feasible state; all states.
    mixer : {"ring", "complete", "x"}
        Exchanges of neighbours on a ring, or of all pairs, of a group; single flips.

    Raises
    ------
    OptionError
        If p, start or mixer is none of these.
    """
    if p < 1:
        raise OptionError(f"p is {p}; it must be 1 or more")
    if start not in STARTS:
        raise OptionError(f"start is {start!r}; it must be one of {', '.join(STARTS)}")
    if mixer not in MIXERS:
        raise OptionError(f"mixer is {mixer!r}; it must be one of {', '.join(MIXERS)}")
    sizes = [int(size) for size in problem.group_sizes]
    rotations, depth, ccz = 0, 0, 0
    if start == "dicke":
        blocks = [
            dicke_counts(n, int(k)) for n, k in zip(sizes, problem.cardinalities, strict=True)
        ]
        rotations, ccz = sum(b[0] for b in blocks), sum(b[2] for b in blocks)
        depth = max((b[1] for b in blocks), default=0)
    couplings = count_couplings(problem, with_penalty=mixer == "x")
    cost_depth = 1 + (complete_depth(problem.n) if couplings else 0)
    mixers = [mixer_counts(n, mixer) for n in sizes]
    rotations += p * (problem.n + couplings + sum(m[0] for m in mixers))
    depth += p * (cost_depth + max((m[1] for m in mixers), default=0))
    return LogicalCounts(problem.n, rotations, depth, 0, ccz, problem.n)


def dicke_counts(n: int, k: int) -> tuple[int, int, int]:
    """Return rotations, rotation depth and Toffoli gates of the Dicke state of n qubits, k ones.

    With ``l = min(k, n - k)``, step ``j = 1 … n - 1`` of the circuit has one RY with one control
    and ``min(l, j) - 1`` with two.
    """
    fewer = min(k, n - k)
    if fewer == 0:
        return 0, 0, 0
    controlled = fewer * (fewer + 1) // 2 + fewer * (n - 1 - fewer)
    overlap = min(fewer, 3)  # further ones of a step run beside those of the next step
    depth = 2 * (overlap * n - overlap * (overlap + 1) // 2)
    return 2 * controlled, depth, 2 * (controlled - (n - 1))


def mixer_counts(n: int, mixer: Mixer) -> tuple[int, int]:
    """Return rotations and rotation depth of one mixer layer of a group of n variables."""
    if mixer == "x":
        return n, min(n, 1)
    if mixer == "complete":
        return n * (n - 1), complete_depth(n)
    if n < 3:
        return (2, 1) if n == 2 else (0, 0)
    return 2 * n, 2 + n % 2


def complete_depth(n: int) -> int:
    """Return the rounds of disjoint pairs that hold all pairs of n."""
    return 0 if n < 2 else n - 1 + n % 2


def count_couplings(problem: CardinalityQUBO, with_penalty: bool) -> int:
    """Return the pairs of variables with a coupling, optionally also those of one group."""
    if with_penalty and problem.num_groups == 1:
        return problem.n * (problem.n - 1) // 2
    coupled = problem.Q != 0
    if with_penalty:
        coupled = coupled | (problem.groups[:, None] == problem.groups[None, :])
    return int(np.count_nonzero(coupled) - np.count_nonzero(np.diagonal(coupled))) // 2
