"""Quantum approximate optimization algorithm, with a preserved or penalised cardinality."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from problems.penalty import Penalty
from solvers.base import Capabilities, Outcome, Request
from solvers.errors import OptionError
from solvers.penalised import Penalised, best_of
from solvers.qaoa.circuit import MIXERS, cardinality_circuit, circuit_metrics, penalty_circuit
from solvers.qaoa.primitive import MeasuredCircuit, primitive_for, transpiled
from solvers.qaoa.simulator import Simulator, all_states, exchanges, feasible_states, flips
from solvers.solution import Stop

Angles = npt.NDArray[np.float64]

OPTIMIZERS = ("cobyla", "nelder-mead", "powell")


@dataclass(frozen=True)
class Qaoa(Penalised):
    """Optimise the angles of a shallow circuit, then measure it.

    The *cardinality* form starts in the Dicke state and mixes by exchanges, so that every sample
    is feasible (arXiv 1709.03489); the *penalty* form starts in the uniform superposition and
    mixes by single flips, with increases of the strength and repair like the other penalised
    backends. Without a ``sampler`` or ``backend`` both are simulated exactly.

    Parameters
    ----------
    form : {"cardinality", "penalty"}
    p : int
        Layers.
    mixer : {"complete", "ring"}
        Pairs of a group that are exchanged, in the cardinality form.
    optimizer : str or qiskit_optimization.optimizers.Optimizer
        "cobyla", "nelder-mead" or "powell", or an instance such as ``SPSA()``.
    evaluations : int
        Largest number of evaluations of the optimiser.
    tail : float
        Share of the best measurements whose mean energy is minimised (CVaR, arXiv 1907.04769); 1
        is the expectation.
    angles : sequence of float, optional
        Initial ``γ₁ … γ_p, β₁ … β_p``, such as ``info["angles"]`` of a similar problem; a linear
        ramp by default (arXiv 2101.05742).
    shots : int
        Measurements at the best angles (at least ``num_reads``), and per evaluation on a device;
        the best ``num_reads`` are returned.
    sampler : BaseSamplerV2, optional
        A primitive that runs the circuits.
    backend : BackendV2, optional
        Target of the transpiler; also runs the circuits if there is no ``sampler``.
    """

    form: str = "cardinality"
    p: int = 2
    mixer: str = "complete"
    optimizer: Any = "cobyla"
    evaluations: int = 100
    tail: float = 0.2
    angles: tuple[float, ...] | None = None
    shots: int = 1024
    sampler: Any = None
    backend: Any = None

    name: ClassVar[str] = "qaoa"
    summary: ClassVar[str] = "QAOA with a mixer that preserves the cardinality, or with a penalty"
    capabilities: ClassVar[Capabilities] = Capabilities(max_n=16, groups=True, initial_state=False)
    requires: ClassVar[dict[str, str]] = {"qiskit": "qiskit>=1.1", "scipy": "scipy>=1.11"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in ("cardinality", "penalty"):
            raise OptionError(f"form is {self.form!r}; it must be 'cardinality' or 'penalty'")
        if self.mixer not in MIXERS:
            raise OptionError(f"mixer is {self.mixer!r}; it must be one of {', '.join(MIXERS)}")
        if not (self.optimizer in OPTIMIZERS or hasattr(self.optimizer, "minimize")):
            raise OptionError(
                f"optimizer is {self.optimizer!r}; it must be one of {', '.join(OPTIMIZERS)}, "
                "or an Optimizer of qiskit-optimization"
            )
        for option in ("p", "evaluations", "shots"):
            if getattr(self, option) < 1:
                raise OptionError(f"{option} is {getattr(self, option)}; it must be 1 or more")
        if not 0 < self.tail <= 1:
            raise OptionError(f"tail is {self.tail}; it must lie in (0, 1]")
        if self.angles is not None and not (
            len(self.angles) == 2 * self.p and np.isfinite(self.angles).all()
        ):
            raise OptionError(f"angles are {self.angles}; pass 2p = {2 * self.p} finite numbers")

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Optimise the angles and measure, in the chosen form."""
        if self.form == "penalty":
            return super().run(problem, request)
        begin = time.perf_counter()
        states = feasible_states(problem)
        energies = problem.energy(states)
        scale = _spread(energies)
        mix = MIXERS[self.mixer]
        pairs = [pair for members in problem.group_members for pair in mix(members.tolist())]
        circuit = transpiled(cardinality_circuit(problem, scale, self.p, self.mixer), self.backend)
        degree = 2 * len(pairs) / problem.n
        simulator = Simulator(states, energies / scale, exchanges(states, pairs))
        build = time.perf_counter() - begin
        outcome = self._optimise(problem, circuit, simulator, scale, 1.5 / degree, request)
        # A noisy device may violate the cardinality that the ideal circuit preserves.
        samples, repaired = self._repair(problem, outcome.samples, request)
        best = best_of(problem, samples, request.num_reads)
        outcome.samples, outcome.repaired = samples[best], repaired[best]
        outcome.build_seconds = build
        return outcome

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Optimise the angles and measure, in the penalty form."""
        begin = time.perf_counter()
        states = all_states(form.n)
        energies = form.energy(states)
        scale = _spread(energies[form.is_feasible(states)])
        circuit = transpiled(penalty_circuit(form, scale, self.p), self.backend)
        simulator = Simulator(states, energies / scale, flips(states))
        build = time.perf_counter() - begin
        outcome = self._optimise(form, circuit, simulator, scale, 0.75, request)
        outcome.build_seconds = build
        return outcome

    def _optimise(
        self,
        problem: CardinalityQUBO,
        circuit: Any,
        simulator: Simulator,
        scale: float,
        step: float,
        request: Request,
    ) -> Outcome:
        """Optimise the angles, measure at the best ones, and report the circuit."""
        source: Simulator | MeasuredCircuit = simulator
        if self.sampler is not None or self.backend is not None:
            primitive = primitive_for(self.sampler, self.backend)
            source = MeasuredCircuit(problem, circuit, primitive, scale, self.shots)
        rng = np.random.default_rng(request.seed)
        start = np.asarray(self.angles if self.angles is not None else _ramp(self.p, step))
        trace = _Trace(source, self.tail, self.evaluations, request)
        with suppress(_BudgetExceeded):
            self._minimise(trace, start, rng)
        samples = source.draw(trace.angles, max(self.shots, request.num_reads), rng)
        info = {
            "angles": trace.angles.tolist(),
            "evaluations": trace.count,
            "tail_energy": trace.value * scale,
            "circuit": circuit_metrics(circuit),
        }
        cut = request.remaining == 0
        stop = Stop.TIME_LIMIT if cut else Stop.ITERATION_LIMIT
        return Outcome(samples, stop, info=info)

    def _minimise(self, trace: _Trace, start: Angles, rng: np.random.Generator) -> None:
        if isinstance(self.optimizer, str):
            from scipy.optimize import minimize

            options = {"rhobeg": 0.2} if self.optimizer == "cobyla" else {}
            minimize(trace, start, method=self.optimizer, options=options)
        else:
            from qiskit_optimization.utils import algorithm_globals

            algorithm_globals.random_seed = int(rng.integers(2**31))
            self.optimizer.minimize(trace, start)


class _BudgetExceeded(Exception):  # noqa: N818
    """Raised to stop an optimiser when evaluations or time run out."""


class _Trace:
    """Objective function for an optimiser; records the best angles and the number of calls."""

    def __init__(
        self, source: Simulator | MeasuredCircuit, tail: float, most: int, request: Request
    ):
        self.source, self.tail, self.most, self.request = source, tail, most, request
        self.count, self.value, self.angles = 0, float("inf"), np.zeros(0)

    def __call__(self, angles: Any) -> float:
        if self.count and (self.count >= self.most or self.request.remaining == 0):
            raise _BudgetExceeded
        vector = np.array(angles, dtype=np.float64)
        value = self.source.objective(vector, self.tail)
        self.count += 1
        if value < self.value or self.count == 1:
            self.value, self.angles = value, vector
        return value


def _ramp(p: int, step: float) -> Angles:
    """Return angles of an adiabatic path in ``p`` steps: γ increases while β decreases."""
    rising = (np.arange(p) + 0.5) / p
    return np.concatenate([0.75 * rising, step * (1 - rising)])


def _spread(energies: npt.NDArray[np.float64]) -> float:
    """Return the standard deviation, or 1 if all energies are equal."""
    spread = float(energies.std())
    return spread if spread > 1e-12 * float(np.abs(energies).max()) else 1.0
