"""Optimisation algorithms of qiskit-optimization as solvers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from problems import CardinalityQUBO
from problems.formats.quadratic_program import to_quadratic_program
from problems.repair import repair
from problems.scaling import Scaled
from solvers.adapters.ocean import no_states
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.errors import BackendError, UnsupportedError
from solvers.solution import Stop

#: Algorithms store the current problem in their converters, so only one may run at a time.
_LOCK = threading.Lock()
#: Range of exponents of coefficients: some algorithms treat less than 1e-16 as zero.
_SAFE = 32


@dataclass(frozen=True)
class QiskitOptimizer(Solver):
    """Pass the problem as a QuadraticProgram with the cardinality as a linear constraint.

    Algorithms without constraints convert it to a penalty themselves; infeasible samples are
    repaired and marked.

    Parameters
    ----------
    algorithm : qiskit_optimization.algorithms.OptimizationAlgorithm
        Such as ``MinimumEigenOptimizer`` or ``GroverOptimizer``.
    """

    algorithm: Any = field(kw_only=True)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The class of the algorithm."""
        return f"qiskit:{type(self.algorithm).__name__}"

    capabilities = Capabilities(
        native_cardinality=False,
        groups=True,
        deterministic=False,
        time_limit=False,
        seed=False,
        initial_state=False,
        num_reads=False,
    )
    requires = {"qiskit_optimization": "qiskit-optimization>=0.6"}  # noqa: RUF012

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Convert the problem, solve it, and return all samples."""
        begin = time.perf_counter()
        form = Scaled.of(problem, _SAFE).problem
        assert isinstance(form, CardinalityQUBO)
        program = to_quadratic_program(form)
        if reason := self.algorithm.get_compatibility_msg(program).strip():
            raise UnsupportedError(f"solver {self.name!r} can't take this problem: {reason}")
        build = time.perf_counter() - begin
        with _LOCK:
            result = self.algorithm.solve(program)
        rows = [sample.x for sample in result.samples or ()]
        if not rows and result.x is not None:
            rows = [result.x]
        values = np.array(rows, dtype=np.float64).reshape(len(rows), problem.n)
        if np.abs(values - values.round()).max(initial=0) > 1e-6:
            raise BackendError(f"solver {self.name!r} returned values that are not binary")
        states = np.concatenate([values.round().astype(np.uint8), no_states(problem.n)])
        repaired = ~np.asarray(problem.is_feasible(states), dtype=bool)
        info = {"status": result.status.name, "feasible_share": float(np.mean(~repaired))}
        states = repair(problem, states)
        return Outcome(states, Stop.CONVERGED, build_seconds=build, repaired=repaired, info=info)
