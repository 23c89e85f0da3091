"""Foreign objects as solvers: any dimod sampler, any optimiser of qiskit-optimization."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import dimod
import numpy as np

from problems import CardinalityQUBO
from problems.penalty import Penalty
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.errors import OptionError
from solvers.ocean import dense_bqm, states_of
from solvers.penalty import Penalised
from solvers.solution import Stop


def as_solver(backend: Any) -> Solver:
    """Make a solver of a foreign object.

    Parameters
    ----------
    backend : dimod.Sampler, object with ``sample_cqm``, or OptimizationAlgorithm
        A structured sampler (a quantum processor, or its mock) is embedded; one that takes
        constrained models keeps the cardinality; any other dimod sampler gets it as a
        penalty; an algorithm of qiskit-optimization gets a ``QuadraticProgram``.

    Returns
    -------
    Solver

    Raises
    ------
    OptionError
        If it is none of these.
    """
    if isinstance(backend, Solver):
        return backend
    if isinstance(own := getattr(backend, "solver", None), Solver):  # one of ours, wrapped
        return own
    if isinstance(backend, dimod.Structured):
        from solvers.qpu import Qpu

        return Qpu(sampler=backend)
    if hasattr(backend, "sample_cqm"):
        from solvers.hybrid import Hybrid

        return Hybrid(sampler=backend)
    if isinstance(backend, dimod.Sampler):
        return DimodSolver(sampler=backend)
    if "qiskit_optimization" in sys.modules:
        from qiskit_optimization.algorithms import OptimizationAlgorithm

        if isinstance(backend, OptimizationAlgorithm):
            from solvers.qiskit_optimizer import QiskitOptimizer

            return QiskitOptimizer(algorithm=backend)
    if isinstance(backend, type):
        raise OptionError(f"solver is the class {backend.__name__}; pass an instance of it")
    raise OptionError(
        f"solver is a {type(backend).__name__}; pass a registered name, a Solver, a "
        "dimod.Sampler, or an OptimizationAlgorithm of qiskit-optimization"
    )


@dataclass(frozen=True)
class DimodSolver(Penalised):
    """A dimod sampler behind our interface; its declared parameters are its capabilities.

    Parameters
    ----------
    sampler : dimod.Sampler
    parameters : dict
        Further keyword arguments of its ``sample``.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    sampler: Any = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.parameters) - set(self.sampler.parameters)):
            raise OptionError(
                f"{self.name} has no parameter {unknown[0]!r}; "
                f"it has: {', '.join(sorted(self.sampler.parameters)) or 'none'}"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The class of the sampler."""
        return f"dimod:{type(self.sampler).__name__}"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """What the sampler's parameters let it honour."""
        knows = self.sampler.parameters
        return Capabilities(
            native_cardinality=False,
            groups=True,
            deterministic="seed" in knows,
            time_limit="time_limit" in knows,
            seed="seed" in knows,
            initial_state="initial_states" in knows,
            num_reads="num_reads" in knows,
        )

    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Call the sampler with what it declares."""
        begin = time.perf_counter()
        asked: dict[str, Any] = dict(self.parameters)
        knows = self.sampler.parameters
        if "num_reads" in knows:
            asked["num_reads"] = request.num_reads
        if request.seed is not None:
            asked["seed"] = request.seed % 2**31
        if request.initial_state is not None:
            asked["initial_states"] = request.initial_state.astype(np.int8), range(form.n)
        if request.time_limit is not None:
            asked["time_limit"] = request.remaining
        bqm = dense_bqm(form)
        build = time.perf_counter() - begin
        states = states_of(self.sampler.sample(bqm, **asked), form.n)
        cut = request.remaining == 0
        stop = Stop.TIME_LIMIT if cut else Stop.ITERATION_LIMIT
        return Outcome(states, stop, build_seconds=build)
