"""Assess problems on targets: all seven parts for each problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from problems import CardinalityQUBO
from problems.mean_energy import mean_energy
from problems.scaling import check_energies
from solvers.base import State
from solvers.readiness.annealer import Embedding, embeddings
from solvers.readiness.classical import Classical, Comparison, gap_of, measured
from solvers.readiness.device import DeviceCircuit, device_circuit
from solvers.readiness.fault_tolerant import FaultTolerant, fault_tolerant
from solvers.readiness.logical import MIXERS, STARTS, LogicalCircuit, logical_circuit
from solvers.readiness.options import Options
from solvers.readiness.problem import Couplings, ProblemFigures, problem_figures
from solvers.readiness.quality import ANGLES, Quality, quality
from solvers.readiness.target import AnnealerTarget, FaultTolerantTarget, GateTarget, Target
from solvers.readiness.verdict import (
    Verdict,
    annealer_verdict,
    fault_tolerant_verdict,
    gate_verdict,
    with_classical,
)


@dataclass(frozen=True)
class Assessment:
    """A problem on all targets; a part that could not be given says so in ``skipped``."""

    name: str
    problem: ProblemFigures
    """Part 1."""
    logical: list[LogicalCircuit]
    """Part 2: all encodings, starts and mixers, for each p."""
    devices: list[DeviceCircuit]
    """Part 3: each gate-based target, for each p."""
    quality: list[Quality]
    """Part 4: each p, with a linear ramp of angles and with optimised ones."""
    annealers: list[Embedding]
    """Part 5: each annealer, with cliques on the whole graph and on that with faults, and with
    minorminer's heuristic."""
    fault_tolerant: list[FaultTolerant]
    """Part 6: each target with error correction, for each p."""
    verdicts: list[Verdict]
    """Part 7: each target."""


@dataclass(frozen=True)
class Case:
    """A problem with its name and what is known of it."""

    name: str
    problem: CardinalityQUBO
    start: State | None = None
    """Status quo."""
    best: float | None = None
    """Lowest energy known."""


def assess(
    problem: CardinalityQUBO,
    options: Options | None = None,
    *,
    name: str = "problem",
    start: State | None = None,
    best: float | None = None,
) -> Assessment:
    """Compute all figures of a problem on quantum hardware, without hardware.

    Parameters
    ----------
    problem : CardinalityQUBO
    options : Options, optional
        Targets and choices; all targets of the package by default.
    name : str
        Name in tables, and in a comparison.
    start : array_like of 0/1, shape (n,), optional
        Status quo, from which gaps are counted.
    best : float, optional
        Lowest energy known.

    Returns
    -------
    Assessment
        Serialisable by :func:`dataclasses.asdict`.

    Raises
    ------
    OptionError, TableError, InvalidProblemError
        Before any work is done. Packages that are missing give parts that are skipped; see
        :meth:`Options.missing_packages`.

    Examples
    --------
    >>> from problems.planted import planted
    >>> from solvers.readiness import Options, assess, load_targets
    >>> options = Options(targets=tuple(load_targets("all-to-all")), p=(1,), classical_seconds=0)
    >>> found = assess(planted(8, 4, 8).problem, options)
    >>> found.devices[0].two_qubit_gates
    136
    """
    return next(assess_all([Case(name, problem, start, best)], options))


def assess_all(
    cases: Iterable[Case],
    options: Options | None = None,
    progress: Callable[[str], object] | None = None,
) -> Iterator[Assessment]:
    """Assess several problems, one after another.

    Parameters
    ----------
    cases : iterable of Case
    options : Options, optional
    progress : callable, optional
        Called with the name of each part as it begins, such as ``"garment-0-12-late: devices"``.
    """
    chosen = Options() if options is None else options
    comparison = None if chosen.comparison is None else Comparison(chosen.comparison)
    for case in cases:
        yield _assessed(case, chosen, comparison, progress or (lambda part: None))


def _assessed(
    case: Case,
    options: Options,
    comparison: Comparison | None,
    progress: Callable[[str], object],
) -> Assessment:
    problem = case.problem
    check_energies(problem)
    progress(f"{case.name}: problem")
    couplings = Couplings.of(problem)
    figures = problem_figures(problem)
    gates = _of(options.targets, GateTarget)
    progress(f"{case.name}: circuits")
    devices = [
        device_circuit(problem, target, p, options.start, options.mixer, couplings)
        for target in gates
        for p in options.p
    ]
    progress(f"{case.name}: embeddings")
    annealers = {
        target.name: embeddings(
            problem, target, timeout=options.embedding_seconds, seed=options.seed
        )
        for target in _of(options.targets, AnnealerTarget)
    }
    progress(f"{case.name}: quality")
    qualities = _qualities(case, options)
    progress(f"{case.name}: fault tolerance")
    tolerant = [
        fault_tolerant(
            couplings,
            target,
            p,
            start=options.start,
            mixer=options.mixer,
            success=_success(qualities, p),
        )
        for target in _of(options.targets, FaultTolerantTarget)
        for p in options.p
    ]
    progress(f"{case.name}: verdicts")
    verdicts = _verdicts(problem, couplings, options, devices, annealers, tolerant)
    classical = _classical(case, options, comparison)
    gap = _sampled_gap(qualities, case) if gates else None
    return Assessment(
        name=case.name,
        problem=figures,
        logical=_logical(couplings, options.p),
        devices=devices,
        quality=qualities,
        annealers=[row for rows in annealers.values() for row in rows],
        fault_tolerant=tolerant,
        verdicts=[
            with_classical(verdict, classical, gap if verdict.kind == "gate" else None)
            for verdict in verdicts
        ],
    )


def _logical(couplings: Couplings, layers: Sequence[int]) -> list[LogicalCircuit]:
    """Count all encodings, starts and mixers; parts do not depend on p."""
    rows = []
    for encoding, starts in STARTS.items():
        for start in starts:
            for mixer in MIXERS[encoding]:
                one = logical_circuit(couplings, 1, start, mixer, encoding)
                rows += [replace(one, p=p) for p in layers]
    return rows


def _qualities(case: Case, options: Options) -> list[Quality]:
    """Simulate circuits without noise, by a ramp and by optimised angles."""
    return [
        quality(
            case.problem,
            p,
            angles=angles,
            start=options.start,
            mixer=options.mixer,
            shots=options.shots,
            seed=options.seed,
            initial_state=case.start,
        )
        for p in options.p
        for angles in ANGLES
    ]


def _success(qualities: list[Quality], p: int) -> float | None:
    """Return the largest probability of the optimum at p layers; None if none was simulated."""
    found = [row.optimum_probability for row in qualities if row.p == p]
    return max((value for value in found if value is not None), default=None)


def _sampled_gap(qualities: list[Quality], case: Case) -> float | None:
    """Return the least gap of the expected best of all shots; None if none was simulated."""
    found = [row for row in qualities if row.best is not None and row.optimum is not None]
    if not found:
        return None
    start = found[0].random_mean if case.start is None else case.problem.energy(case.start)
    assert start is not None
    return min(gap_of(row.best or 0.0, row.optimum or 0.0, float(start)) for row in found)


def _verdicts(
    problem: CardinalityQUBO,
    couplings: Couplings,
    options: Options,
    devices: list[DeviceCircuit],
    annealers: dict[str, list[Embedding]],
    tolerant: list[FaultTolerant],
) -> list[Verdict]:
    """Judge each target by its circuit with the fewest layers, or by its embeddings."""
    found = []
    for target in options.targets:
        if isinstance(target, GateTarget):
            circuit = next(row for row in devices if row.target == target.name)
            found.append(gate_verdict(problem, target, circuit, couplings, options.min_success))
        elif isinstance(target, AnnealerTarget):
            found.append(annealer_verdict(problem, target, annealers[target.name]))
        else:
            row = next(row for row in tolerant if row.target == target.name)
            found.append(fault_tolerant_verdict(problem, target, row))
    return found


def _classical(case: Case, options: Options, comparison: Comparison | None) -> Classical | None:
    """Read or measure what a classical solver does; None if neither is wanted or known."""
    if comparison is not None and (found := comparison.fastest(case.name)) is not None:
        return found
    if not options.classical_seconds:
        return None
    problem = case.problem
    energy = mean_energy(problem) if case.start is None else problem.energy(case.start)
    return measured(
        problem,
        float(energy),
        case.best,
        start=case.start,
        seconds=options.classical_seconds,
        seed=options.seed,
    )


def _of(targets: Iterable[Target], kind: type[Any]) -> list[Any]:
    return [target for target in targets if isinstance(target, kind)]
