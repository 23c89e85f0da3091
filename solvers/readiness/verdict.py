"""Part 7 of readiness: the largest n of a family that fits a target, and what stops the next.

The family of a problem: n changes, with the share of ones, the density of couplings, and the mean
size of groups kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from problems import CardinalityQUBO
from problems.penalty import penalised, penalty_for
from solvers.readiness.annealer import Embedding
from solvers.readiness.classical import AT_BEST, Classical
from solvers.readiness.device import DeviceCircuit, counted
from solvers.readiness.fault_tolerant import FaultTolerant
from solvers.readiness.lattice import line
from solvers.readiness.problem import Couplings, ProblemFigures
from solvers.readiness.programming import dynamic_range
from solvers.readiness.target import AnnealerTarget, FaultTolerantTarget, GateTarget

#: Largest n of blocks of a problem whose precision is computed.
_PRECISION_N = 512


@dataclass(frozen=True)
class Verdict:
    """Whether a problem fits a target, up to which n its family does, and what a CPU needs."""

    target: str
    kind: str
    """``"gate"``, ``"annealer"`` or ``"fault-tolerant"``."""
    n: int
    """Variables of the problem."""
    fits: bool | None = None
    """Whether the problem itself fits; None if that is not known."""
    largest_n: int | None = None
    """Largest n of the family that fits; None if there is no limit, or it is not known. Sizes
    other than the problem's own are judged by counted gates, an upper bound, not by compiled
    circuits."""
    limit: str = ""
    """Obstacle of the next size: ``"qubits"``, ``"success"``, ``"coherence"``, ``"embedding"``,
    ``"precision"``, or ``"none"``; empty if it is not known."""
    reason: str = ""
    """The same as a sentence with its figures."""
    gap: float | None = None
    """Gap g = (E - E*)/(E₀ - E*) that the classical seconds are counted to: for processors that of
    the best of all shots without noise, the least over p, where circuits were simulated; else
    that of the best state known."""
    classical_seconds: float | None = None
    """Seconds of the classical solver to that gap; None if it was not reached."""
    classical_source: str = ""
    skipped: str = ""
    """Reason why there is no verdict; empty if there is one."""


def gate_verdict(
    problem: CardinalityQUBO,
    target: GateTarget,
    circuit: DeviceCircuit,
    couplings: Couplings,
    min_success: float,
) -> Verdict:
    """Judge a processor by qubits, success and coherence of one circuit.

    Gates of other sizes are counted, not compiled (:func:`solvers.readiness.device.counted`); on
    explicit couplings they can't be, and the largest n is not known. Where the two disagree on
    the problem's own size, its own circuit decides.

    Parameters
    ----------
    problem : CardinalityQUBO
    target : GateTarget
    circuit : DeviceCircuit
        The problem's circuit with the fewest layers.
    couplings : Couplings
    min_success : float
        Least probability of a shot without errors.
    """
    stopped = obstacle(circuit, target, min_success)
    if not line(target):  # gates of other sizes can't be counted
        base = Verdict(target.name, target.kind, problem.n)
        if circuit.skipped and problem.n <= target.qubits:
            return replace(base, skipped=circuit.skipped)
        limit, reason = stopped or ("", f"sizes other than n = {problem.n} are not counted")
        return replace(base, fits=stopped is None, limit=limit, reason=reason)
    family = Family.of(couplings)
    largest, limit, reason = _largest(
        family, target, circuit.p, circuit.start, circuit.mixer, min_success
    )
    if stopped is None and problem.n > largest:
        # Compiled, it takes fewer gates than counted.
        largest = problem.n
        next_one = _counted_obstacle(
            family, target, largest + 1, circuit.p, circuit.start, circuit.mixer, min_success
        )
        limit, reason = next_one or (limit, reason)
    elif stopped is not None and stopped[0] != "qubits" and problem.n <= largest:
        # A member that is counted at this size has other couplings.
        largest, (limit, reason) = problem.n - 1, stopped
    return Verdict(target.name, target.kind, problem.n, stopped is None, largest, limit, reason)


def obstacle(
    circuit: DeviceCircuit, target: GateTarget, min_success: float
) -> tuple[str, str] | None:
    """Return the limit that a circuit exceeds, and a sentence about it; None if it fits."""
    if circuit.log10_success is None or circuit.duration is None:
        return "qubits", circuit.skipped
    if circuit.log10_success < math.log10(min_success):
        return "success", (
            f"n = {circuit.qubits}: {circuit.two_qubit_gates:,} gates on two qubits "
            f"({circuit.method}) leave {power(circuit.log10_success)} of the shots without an error"
        )
    limit = min(target.t1, target.t2)
    if circuit.duration > limit:
        name = "T1" if target.t1 <= target.t2 else "T2"
        return "coherence", (
            f"n = {circuit.qubits}: a shot takes {circuit.duration:.3g} s, longer than "
            f"{name} = {limit:.3g} s"
        )
    return None


def annealer_verdict(
    problem: CardinalityQUBO, target: AnnealerTarget, rows: Iterable[Embedding]
) -> Verdict:
    """Judge an annealer by its largest clique, and by the precision of its couplings.

    Parameters
    ----------
    problem : CardinalityQUBO
    target : AnnealerTarget
    rows : iterable of Embedding
        Embeddings of the problem in this target.
    """
    known = list(rows)
    base = Verdict(target.name, target.kind, problem.n)
    skipped = [row.skipped for row in known if row.skipped]
    if not known or len(skipped) == len(known):
        return replace(base, skipped=skipped[0] if skipped else "it was not embedded")
    working = [row for row in known if row.faulty] or known
    cliques = [row.largest_clique for row in working if row.largest_clique is not None]
    clique = min(cliques, default=0)
    found = [row for row in working if row.found]
    held = max([clique, *(problem.n for _ in found)])
    need = bits_needed(problem)
    resolved = [size for size, bits in need if bits <= target.bits and size <= held]
    exact = need[-1][0] == problem.n and need[-1][1] <= target.bits
    if not resolved or resolved[-1] < min(held, need[-1][0]):
        size, bits = next(row for row in need if row[0] not in resolved)
        reason = (
            f"n = {size}: couplings need {bits:.1f} bits with the penalty, and {target.name} "
            f"resolves {target.bits:g}"
        )
        largest = resolved[-1] if resolved else 0
        return replace(base, fits=False, largest_n=largest, limit="precision", reason=reason)
    return replace(
        base,
        fits=bool(found) and exact,
        largest_n=held,
        limit="embedding",
        reason=f"the largest complete graph that {target.name} holds has {clique} variables",
    )


def bits_needed(problem: CardinalityQUBO) -> list[tuple[int, float]]:
    """Return the bits that couplings need with the penalty, for blocks of growing size.

    Each block is made of the first variables of each group, with the same share of ones; the
    last one is the problem itself up to n = 512.
    """
    sizes = [4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    top = min(problem.n, _PRECISION_N)
    found = []
    for size in [*(size for size in sizes if size < top), top]:
        block = problem if size == problem.n else _block(problem, size)
        form = penalised(block, penalty_for(block, "exchange"))
        ratio = dynamic_range(block, form)
        found.append((size, 1.0 if ratio is None else math.log2(ratio) + 1))
    return found


def fault_tolerant_verdict(
    problem: CardinalityQUBO, target: FaultTolerantTarget, row: FaultTolerant
) -> Verdict:
    """Judge a machine with error correction, which has no largest n but a price."""
    base = Verdict(target.name, target.kind, problem.n)
    if row.skipped or row.physical_qubits is None or row.shot_seconds is None:
        return replace(base, skipped=row.skipped or "it was not estimated")
    reason = (
        f"no size is too large for it; n = {problem.n} takes {row.physical_qubits:,} physical "
        f"qubits and {row.shot_seconds:.3g} s a shot at p = {row.p}"
    )
    return replace(base, fits=True, limit="none", reason=reason)


def with_classical(verdict: Verdict, classical: Classical | None, gap: float | None) -> Verdict:
    """Add the seconds that a classical solver needs to a gap, or to the best state."""
    if classical is None:
        return verdict
    wanted = AT_BEST if gap is None else gap
    return replace(
        verdict,
        gap=wanted,
        classical_seconds=classical.seconds_to(wanted),
        classical_source=classical.source,
    )


def power(log10: float) -> str:
    """Write a probability by its logarithm, also below the smallest number."""
    if log10 > -4:
        return f"{10.0**log10:.2g}"
    exponent = math.floor(log10)
    return f"{10 ** (log10 - exponent):.0f}e{exponent}"


@dataclass(frozen=True)
class Family:
    """Problems of any size that resemble one."""

    density: float
    """Share of the pairs that are coupled."""
    share: float
    """Share of the variables that are 1."""
    group: int | None
    """Size of a group; None for a single group."""

    @classmethod
    def of(cls, figures: Couplings | ProblemFigures) -> Family:
        """Return the family of a problem."""
        if isinstance(figures, Couplings):
            k, groups = sum(figures.cardinalities), sum(size > 0 for size in figures.sizes)
        else:
            k, groups = figures.k, figures.groups
        n = max(1, figures.n)
        group = max(1, round(n / groups)) if groups > 1 else None
        return cls(round(figures.density, 2), round(k / n, 3), group)

    def member(self, n: int) -> tuple[Couplings, tuple[tuple[int, ...], ...]]:
        """Return couplings at random and the variables of each group."""
        step = self.group or n
        groups = tuple(tuple(range(a, min(a + step, n))) for a in range(0, n, step))
        mask = np.triu(np.random.default_rng(n).random((n, n)) < self.density, 1)
        sizes = tuple(len(group) for group in groups)
        ks = tuple(round(self.share * size) for size in sizes)
        labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        return Couplings(mask | mask.T, sizes, ks, labels), groups


def _counted_obstacle(
    family: Family,
    target: GateTarget,
    n: int,
    p: int,
    start: str,
    mixer: str,
    min_success: float,
) -> tuple[str, str] | None:
    """Return what stops a member of a family, by counted gates; None if it fits."""
    if n > target.qubits:
        return "qubits", f"{target.name} has {target.qubits} qubits"
    couplings, groups = family.member(n)
    empty = DeviceCircuit(target.name, p, start, mixer, n)
    return obstacle(counted(empty, target, couplings, groups), target, min_success)


@lru_cache(maxsize=1024)
def _largest(
    family: Family, target: GateTarget, p: int, start: str, mixer: str, min_success: float
) -> tuple[int, str, str]:
    """Return the largest n that fits, and what stops the next: the limit and a sentence."""
    fits, fails, why = 1, target.qubits + 1, ("qubits", f"{target.name} has {target.qubits} qubits")
    while fails - fits > 1:
        middle = (fits + fails) // 2
        found = _counted_obstacle(family, target, middle, p, start, mixer, min_success)
        if found is None:
            fits = middle
        else:
            fails, why = middle, found
    return fits, *why


def _block(problem: CardinalityQUBO, size: int) -> CardinalityQUBO:
    """Return the block of the first variables of each group, with the same share of ones."""
    share = size / problem.n
    kept, ks, labels = [], list[int](), list[int]()
    for members, k in zip(problem.group_members, problem.cardinalities.tolist(), strict=True):
        own = members[: max(1, round(share * len(members)))]
        labels += [len(ks)] * len(own)
        ks.append(min(len(own), round(k * len(own) / max(1, len(members)))))
        kept.append(own)
    chosen = np.concatenate(kept)
    return CardinalityQUBO(problem.Q[np.ix_(chosen, chosen)], ks, groups=labels)
