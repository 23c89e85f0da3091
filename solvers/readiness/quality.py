"""Quality of a circuit's measurements against p, relative to random feasible states (part 4)."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.errors import OptionError
from solvers.qaoa import Qaoa
from solvers.qaoa.angles import Trace, default_slopes, minimise, ramp
from solvers.qaoa.circuit import cardinality_circuit, mixer_degree
from solvers.qaoa.noise import NoisySampler
from solvers.qaoa.primitive import MeasuredCircuit, transpiled
from solvers.qaoa.simulator import cardinality_simulator, tail_mean
from solvers.qaoa.space import count_feasible
from solvers.qaoa.start import start_of
from solvers.request import make_request

Vector = npt.NDArray[np.float64]

#: Choices of the angles: a linear ramp without an optimiser, or optimised from there.
ANGLES = ("ramp", "optimised")
#: Largest number of feasible states that is simulated: C(20, 10) = 184,756 fits.
MAX_STATES = 200_000
#: Standard errors below the mean of random states at which a circuit passes.
SIGMAS = 3.0
#: Energies this close to the optimum count as optimal, as a share of the energies' range.
_TIE = 1e-9


@dataclass(frozen=True)
class Quality:
    """Distribution of the energies that a circuit measures, and that of random feasible states.

    Energies are those of the problem, its offset included. Without noise every figure is exact,
    and ``shots`` enters the standard errors and the expected best only. With noise all figures of
    the circuit are of the feasible ones among as many measurements. Figures of a skipped part are
    None.
    """

    p: int
    """Layers."""
    angles: str
    """``"ramp"``: a linear ramp, chosen without an optimiser; ``"optimised"``: from there."""
    start: str
    """Initial state: ``"dicke"``, ``"status-quo"`` or ``"relaxation"``."""
    mixer: str
    """``"ring"`` or ``"complete"``."""
    shots: int
    """Measurements, and random states, that the comparison assumes."""
    noise: float | str | None
    """Depolarising rate, or "model" for a noise model; None for the exact circuit."""
    n: int
    """Variables (qubits)."""
    states: int
    """Feasible states."""
    skipped: str = ""
    """Reason why there are no figures, in a sentence; empty if there are."""
    optimum: float | None = None
    """Lowest energy of a feasible state, by enumeration."""
    random_mean: float | None = None
    """Mean energy of all feasible states."""
    random_deviation: float | None = None
    """Standard deviation of the energies of all feasible states."""
    expectation: float | None = None
    """Mean energy measured."""
    deviation: float | None = None
    """Standard deviation of the energies measured."""
    ratio: float | None = None
    """Approximation ratio ``(random_mean - expectation) / (random_mean - optimum)``: 1 at the
    optimum, 0 for random states, negative below them; None if all states have the same energy."""
    gap: float | None = None
    """``(expectation - optimum) / (E0 - optimum)``, with the energy of the status quo as E0, or
    ``random_mean`` where none is given; None if E0 is the optimum."""
    random_gap: float | None = None
    """The same of random states."""
    optimum_probability: float | None = None
    """Probability of measuring an optimal state."""
    random_optimum_probability: float | None = None
    """Share of optimal states among the feasible ones."""
    tail: float | None = None
    """Share of the lowest energies in ``cvar``."""
    cvar: float | None = None
    """Mean of the lowest ``tail`` of the energies measured (arXiv 1907.04769)."""
    random_cvar: float | None = None
    """The same of random states."""
    best: float | None = None
    """Expected lowest energy of ``shots`` measurements; with noise, the lowest measured."""
    random_best: float | None = None
    """Expected lowest energy of ``shots`` random states."""
    standard_error: float | None = None
    """Standard error of the mean of the measurements."""
    random_standard_error: float | None = None
    """Standard error of the mean of ``shots`` random states."""
    sigmas: float | None = None
    """Distance of the expectation below ``random_mean``, in standard errors of the difference."""
    above_random: bool | None = None
    """Whether ``sigmas`` is 3 or more: the circuit is better than random feasible states."""
    feasible_share: float | None = None
    """Share of measurements with the right cardinalities; 1 without noise."""
    evaluations: int | None = None
    """Evaluations of the simulated circuit that chose the angles."""
    parameters: tuple[float, ...] | None = None
    """``γ₁ … γ_p, β₁ … β_p``, for energies in units of ``random_deviation``."""
    seconds: float | None = None
    """Wall time of the simulation."""


def quality(
    problem: CardinalityQUBO,
    p: int,
    *,
    angles: str = "ramp",
    start: str = "dicke",
    mixer: str = "complete",
    shots: int = 1024,
    noise: Any = None,
    seed: int = 0,
    initial_state: Any = None,
    tail: float = 0.1,
    evaluations: int = 60,
) -> Quality:
    """Simulate a circuit and compare it with random feasible states.

    Parameters
    ----------
    problem : CardinalityQUBO
        With at most 200,000 feasible states (one group: n = 20); the part is skipped for others.
    p : int
        Layers.
    angles : {"ramp", "optimised"}
        A linear ramp (LR-QAOA, arXiv 2405.09169) with the default slopes of :class:`Qaoa`, or the
        angles of least expected energy that L-BFGS finds from there, on the exact simulation.
    start, mixer, noise
        As for :class:`solvers.qaoa.Qaoa`.
    shots : int
    seed : int
        Seed of noisy measurements; the exact simulation draws nothing.
    initial_state : array_like of 0/1, shape (n,), optional
        The status quo, for ``gap`` and the start of that name.
    tail : float
        Share of the lowest energies in ``cvar``, in (0, 1].
    evaluations : int
        Largest number of evaluations of the optimiser.

    Returns
    -------
    Quality

    Raises
    ------
    OptionError
        If an option has no valid value.
    InvalidProblemError
        If the initial state has the wrong shape.
    MissingBackendError
        If there is noise and qiskit-aer is not installed.
    """
    if angles not in ANGLES:
        raise OptionError(f"angles is {angles!r}; it must be one of {', '.join(ANGLES)}")
    solver = Qaoa(
        p=p,
        mixer=mixer,
        start=start,
        shots=shots,
        noise=noise,
        tail=tail,
        evaluations=evaluations,
    )
    frame = Quality(
        p, angles, start, mixer, shots, _shown(noise), problem.n, count_feasible(problem)
    )
    if frame.states > MAX_STATES:
        about = f"{frame.states:,}" if frame.states < 1e9 else f"{Decimal(frame.states):.1e}"
        reason = f"{about} feasible states are more than the {MAX_STATES:,} simulated"
        return dataclasses.replace(frame, skipped=reason)
    if start == "status-quo" and initial_state is None:
        return dataclasses.replace(frame, skipped="no status quo to start from is given")
    begin = time.perf_counter()
    request = make_request(solver, problem, None, seed, initial_state, 1, None)
    initial = start_of(start, problem, request)
    simulator = cardinality_simulator(problem, mixer, initial)
    trace = Trace(simulator, 1.0, evaluations, request)
    first = ramp(p, default_slopes(mixer_degree(problem, mixer)))
    rng = np.random.default_rng(seed)
    minimise(trace, [first], "ramp" if angles == "ramp" else "l-bfgs", rng)
    energies = simulator.energies * simulator.scale
    uniform = np.full(len(energies), 1 / len(energies))
    null = _Distribution.of(energies, uniform, shots, tail, float(energies.min()))
    share, count = 1.0, shots
    if noise is None:
        weights = simulator.probabilities(trace.angles)
        found = _Distribution.of(energies, weights, shots, tail, float(energies.min()))
    else:
        circuit = cardinality_circuit(problem, simulator.scale, p, mixer, initial)
        measured = MeasuredCircuit(
            problem, transpiled(circuit, None), NoisySampler(noise, rng), simulator.scale, shots
        ).draw(trace.angles, shots, rng)
        held = measured[problem.is_feasible(measured)]
        share, count = len(held) / shots, len(held)
        if not count:
            reason = f"none of {shots} noisy measurements has the right cardinality"
            return dataclasses.replace(frame, skipped=reason, feasible_share=0.0)
        found = _Distribution.of(
            problem.energy(held), np.full(count, 1 / count), 0, tail, float(energies.min())
        )
    span = null.mean - null.optimum
    if span <= _TIE * abs(null.optimum):
        span = 0.0  # all states have the same energy, up to rounding
    reference = null.mean if request.initial_state is None else problem.energy(initial_state)
    room = max(0.0, reference - null.optimum) if span else 0.0
    error, random_error = found.deviation / math.sqrt(count), null.deviation / math.sqrt(shots)
    spread = math.hypot(error, random_error)
    sigmas = (null.mean - found.mean) / spread if spread and span else 0.0
    return dataclasses.replace(
        frame,
        optimum=null.optimum,
        random_mean=null.mean,
        random_deviation=null.deviation,
        expectation=found.mean,
        deviation=found.deviation,
        ratio=_share(null.mean - found.mean, span),
        gap=_share(found.mean - null.optimum, room),
        random_gap=_share(span, room),
        optimum_probability=found.optimal,
        random_optimum_probability=null.optimal,
        tail=tail,
        cvar=found.cvar,
        random_cvar=null.cvar,
        best=found.best,
        random_best=null.best,
        standard_error=error,
        random_standard_error=random_error,
        sigmas=sigmas,
        above_random=sigmas >= SIGMAS,
        feasible_share=share,
        evaluations=trace.count,
        parameters=tuple(trace.angles.tolist()),
        seconds=time.perf_counter() - begin,
    )


@dataclass(frozen=True)
class _Distribution:
    """Figures of a distribution of energies."""

    optimum: float
    mean: float
    deviation: float
    optimal: float
    cvar: float
    best: float

    @classmethod
    def of(
        cls, energies: Vector, weights: Vector, shots: int, tail: float, optimum: float
    ) -> _Distribution:
        """Compute the figures; ``best`` is the least energy if ``shots`` is 0, else its mean."""
        order = np.argsort(energies, kind="stable")
        energies, weights = energies[order], weights[order]
        mean = float(weights @ energies)
        above = np.clip(1 - np.cumsum(weights), 0, 1) ** shots  # all shots lie above
        best = energies[0] if not shots else -np.diff(above, prepend=1.0) @ energies
        tie = optimum + _TIE * (energies[-1] - optimum)
        return cls(
            optimum=optimum,
            mean=mean,
            deviation=math.sqrt(float(weights @ np.square(energies - mean))),
            optimal=float(weights[energies <= tie].sum()),
            cvar=tail_mean(energies, weights, tail),
            best=float(best),
        )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _shown(noise: Any) -> float | str | None:
    if noise is None:
        return None
    return float(noise) if isinstance(noise, Real) else "model"
