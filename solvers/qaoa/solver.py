"""The solver: options, both forms, and the report of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from problems import CardinalityQUBO
from problems.penalty import Penalty
from solvers.base import Capabilities, Outcome, Request
from solvers.errors import OptionError
from solvers.penalised import Penalised, best_of
from solvers.qaoa.angles import OPTIMIZERS, Trace, default_slopes, minimise, ramp
from solvers.qaoa.circuit import (
    MIXERS,
    cardinality_circuit,
    circuit_metrics,
    mixer_degree,
    penalty_circuit,
)
from solvers.qaoa.metrics import metrics_of
from solvers.qaoa.noise import NoisySampler, check_noise
from solvers.qaoa.primitive import MeasuredCircuit, primitive_for, transpiled
from solvers.qaoa.simulator import (
    Simulator,
    cardinality_simulator,
    energy_scale,
    penalty_simulator,
)
from solvers.qaoa.start import STARTS, start_of
from solvers.solution import Stop


@dataclass(frozen=True)
class Qaoa(Penalised):
    """Optimise the angles of a shallow circuit, then measure it.

    The *cardinality* form starts in the Dicke state and mixes by exchanges, so that every sample
    is feasible (arXiv 1709.03489); the *penalty* form starts in the uniform superposition and
    mixes by single flips, with increases of the strength and repair like the other penalised
    backends. Without a ``sampler``, ``backend`` or ``noise`` both are simulated exactly, the first
    in the space of the feasible states (4 million at most), the second in all ``2ⁿ`` (n ≤ 22).

    Parameters
    ----------
    form : {"cardinality", "penalty"}
    p : int
        Layers.
    mixer : {"complete", "ring"}
        Pairs of a group that are exchanged, in the cardinality form.
    start : {"dicke", "status-quo", "relaxation"}
        Initial state: uniform, the ``initial_state`` of the call, or a warm start from the convex
        relaxation; see :func:`solvers.qaoa.start.start_of`.
    epsilon : float
        The warm start's probabilities lie in ``[ε, 1 - ε]``.
    optimizer : str or qiskit_optimization.optimizers.Optimizer
        "cobyla", "nelder-mead" or "powell", an instance such as ``SPSA()``, or, for exact
        simulations, "l-bfgs", which uses their gradients. "ramp" optimises nothing: the angles
        are a linear ramp (LR-QAOA, arXiv 2405.09169).
    evaluations : int
        Largest number of evaluations of the optimiser.
    tail : float
        Share of the best measurements whose mean energy is minimised (CVaR, arXiv 1907.04769); 1
        is the expectation.
    angles : sequence of float, optional
        Initial ``γ₁ … γ_p, β₁ … β_p``, such as ``info["angles"]`` of a similar problem; a linear
        ramp by default.
    slopes : (float, float), optional
        Δγ and Δβ of the ramp, in layer l ``γ_l = Δγ l/p`` and ``β_l = Δβ (1 - (l - 1)/p)``.
        Energies are in units of their standard deviation over the feasible states. By default
        1.75, and 1.5 divided by the number of gates of the mixer on a qubit.
    ramp_factors : sequence of float
        The ramp is tried with its slopes multiplied by each of these, and the best is kept.
    shots : int
        Measurements at the best angles (at least ``num_reads``), and per evaluation on a device;
        the best ``num_reads`` are returned.
    noise : float or qiskit_aer.noise.NoiseModel, optional
        The circuits run on the simulator of qiskit-aer with this noise model, or with depolarising
        errors of this rate after each CX and a tenth of it after each X and SX.
    sampler : BaseSamplerV2, optional
        A primitive that runs the circuits.
    backend : BackendV2, optional
        Target of the transpiler; also runs the circuits if there is no ``sampler``.
    """

    form: str = "cardinality"
    p: int = 2
    mixer: str = "complete"
    start: str = "dicke"
    epsilon: float = 0.25
    optimizer: Any = "cobyla"
    evaluations: int = 100
    tail: float = 0.2
    angles: tuple[float, ...] | None = None
    slopes: tuple[float, float] | None = None
    ramp_factors: tuple[float, ...] = (1.0,)
    shots: int = 1024
    noise: Any = None
    sampler: Any = None
    backend: Any = None

    name: ClassVar[str] = "qaoa"
    summary: ClassVar[str] = "QAOA with a mixer that preserves the cardinality, or with a penalty"
    capabilities: ClassVar[Capabilities] = Capabilities(max_n=64, groups=True)
    requires: ClassVar[dict[str, str]] = {"qiskit": "qiskit>=1.1", "scipy": "scipy>=1.11"}

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {"form": ("cardinality", "penalty"), "mixer": tuple(MIXERS), "start": STARTS}
        for option, names in choices.items():
            if (given := getattr(self, option)) not in names:
                raise OptionError(f"{option} is {given!r}; it must be one of {', '.join(names)}")
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
        if not 0 < self.epsilon <= 0.5:
            raise OptionError(f"epsilon is {self.epsilon}; it must lie in (0, 0.5]")
        self._check_numbers("angles", 2 * self.p, f"2p = {2 * self.p}")
        self._check_numbers("slopes", 2, "2")
        self._check_numbers("ramp_factors", None, "one or more")
        if self.optimizer == "l-bfgs" and self._is_measured:
            raise OptionError(
                "optimizer 'l-bfgs' needs gradients of the exact simulation; with noise, a "
                "sampler or a backend, choose 'cobyla' or an SPSA()"
            )
        if self.noise is not None:
            if self.sampler is not None or self.backend is not None:
                raise OptionError(
                    "noise is given along with a sampler or backend; noise is that of a "
                    "simulation, so omit one of them"
                )
            check_noise(self.noise)

    def _check_numbers(self, option: str, count: int | None, wanted: str) -> None:
        given = getattr(self, option)
        if given is None:
            return
        if not (len(given) and count in (None, len(given)) and np.isfinite(given).all()):
            raise OptionError(f"{option} are {given}; pass {wanted} finite numbers")

    @classmethod
    @cache
    def warm_up(cls) -> None:
        """Compile the kernels, or load them from their cache."""
        problem = CardinalityQUBO(np.eye(4) + 1, 2)
        for form in ("cardinality", "penalty"):
            cls(form=form, start="relaxation", optimizer="ramp").run(problem, Request(seed=0))

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Choose the angles and measure, in the chosen form."""
        if self.form == "penalty":
            return super().run(problem, request)
        begin = time.perf_counter()
        start = start_of(self.start, problem, request, self.epsilon)
        simulator = None if self._is_measured else cardinality_simulator(problem, self.mixer, start)
        degree = mixer_degree(problem, self.mixer)
        if simulator is None:
            scale = energy_scale(problem)
            circuit = cardinality_circuit(problem, scale, self.p, self.mixer, start)
            outcome = self._measure(problem, circuit, scale, degree, request, begin)
        else:
            metrics = metrics_of(problem, self.p, self.mixer, start)
            outcome = self._simulate(simulator, metrics, degree, request, begin)
        # A noisy device may violate the cardinality that the ideal circuit preserves.
        if self._is_measured:
            held = problem.is_feasible(outcome.samples)
            outcome.info["feasible_share"] = float(np.mean(held))
        samples, repaired = self._repair(problem, outcome.samples, request)
        best = best_of(problem, samples, request.num_reads)
        outcome.samples, outcome.repaired = samples[best], repaired[best]
        return outcome

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Choose the angles and measure, in the penalty form."""
        begin = time.perf_counter()
        start = start_of(self.start, form, request, self.epsilon)
        scale = energy_scale(form)
        if self._is_measured:
            circuit = penalty_circuit(form, scale, self.p, start)
            return self._measure(form, circuit, scale, 2.0, request, begin)
        simulator = penalty_simulator(form, scale, start)
        metrics = metrics_of(form, self.p, None, start)
        return self._simulate(simulator, metrics, 2.0, request, begin)

    @property
    def _is_measured(self) -> bool:
        """Whether circuits are run shot by shot rather than simulated exactly."""
        return any(given is not None for given in (self.noise, self.sampler, self.backend))

    def _simulate(
        self,
        simulator: Simulator,
        metrics: dict[str, int],
        degree: float,
        request: Request,
        begin: float,
    ) -> Outcome:
        rng = np.random.default_rng(request.seed)
        outcome = self._optimise(simulator, simulator.scale, degree, request, begin, rng)
        outcome.info |= {"circuit": metrics, "states": simulator.space.size}
        return outcome

    def _measure(
        self,
        problem: CardinalityQUBO,
        circuit: Any,
        scale: float,
        degree: float,
        request: Request,
        begin: float,
    ) -> Outcome:
        rng = np.random.default_rng(request.seed)
        circuit = transpiled(circuit, self.backend)
        if self.noise is None:
            primitive = primitive_for(self.sampler, self.backend)
        else:
            primitive = NoisySampler(self.noise, rng)
        source = MeasuredCircuit(problem, circuit, primitive, scale, self.shots)
        outcome = self._optimise(source, scale, degree, request, begin, rng)
        outcome.info["circuit"] = circuit_metrics(circuit)
        return outcome

    def _optimise(
        self,
        source: Simulator | MeasuredCircuit,
        scale: float,
        degree: float,
        request: Request,
        begin: float,
        rng: np.random.Generator,
    ) -> Outcome:
        """Choose the angles, and measure at the best ones."""
        build = time.perf_counter() - begin
        trace = Trace(source, self.tail, self.evaluations, request)
        minimise(trace, self._initial_angles(degree), self.optimizer, rng)
        samples = source.draw(trace.angles, max(self.shots, request.num_reads), rng)
        info = {
            "angles": trace.angles.tolist(),
            "evaluations": trace.count,
            "tail_energy": trace.value * scale,
        }
        cut = request.remaining == 0
        stop = Stop.TIME_LIMIT if cut else Stop.ITERATION_LIMIT
        return Outcome(samples, stop, info=info, build_seconds=build)

    def _initial_angles(self, degree: float) -> list[np.ndarray]:
        if self.angles is not None:
            return [np.asarray(self.angles, dtype=np.float64)]
        gamma, beta = self.slopes or default_slopes(degree)
        return [ramp(self.p, (gamma * f, beta * f)) for f in self.ramp_factors]
