"""Adapters: samplers and optimisers of other libraries as solvers, and solvers as samplers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from problems.lazy import attach
from solvers.base import Solver
from solvers.errors import OptionError

if TYPE_CHECKING:
    from solvers.adapters.dimod import IcbsSampler, as_sampler

__all__ = ["IcbsSampler", "as_sampler", "as_solver"]


def as_solver(backend: Any) -> Solver:
    """Wrap an object of another library as a solver.

    Parameters
    ----------
    backend : dimod.Sampler, object with ``sample_cqm``, or OptimizationAlgorithm
        A structured sampler (a quantum processor, or its mock) is embedded; one that takes
        constrained models keeps the cardinality; any other dimod sampler gets it as a
        penalty; an algorithm of qiskit-optimization gets a ``QuadraticProgram``. A solver
        is returned as it is, and an :class:`IcbsSampler` as the solver that it wraps.

    Returns
    -------
    Solver

    Raises
    ------
    OptionError
        If the object is of any other kind.
    """
    if isinstance(backend, Solver):
        return backend
    if isinstance(wrapped := getattr(backend, "solver", None), Solver):
        return wrapped
    import dimod

    if isinstance(backend, dimod.Structured):
        from solvers.qpu import Qpu

        return Qpu(sampler=backend)
    if hasattr(backend, "sample_cqm"):
        from solvers.hybrid import Hybrid

        return Hybrid(sampler=backend)
    if isinstance(backend, dimod.Sampler):
        from solvers.adapters.dimod import DimodSolver

        return DimodSolver(sampler=backend)
    if "qiskit_optimization" in sys.modules:
        from qiskit_optimization.algorithms import OptimizationAlgorithm

        if isinstance(backend, OptimizationAlgorithm):
            from solvers.adapters.qiskit import QiskitOptimizer

            return QiskitOptimizer(algorithm=backend)
    if isinstance(backend, type):
        raise OptionError(f"solver is the class {backend.__name__}; pass an instance of it")
    raise OptionError(
        f"solver is a {type(backend).__name__}; pass a registered name, a Solver, a "
        "dimod.Sampler, or an OptimizationAlgorithm of qiskit-optimization"
    )


_HOME = {"IcbsSampler": "solvers.adapters.dimod", "as_sampler": "solvers.adapters.dimod"}
__getattr__, __dir__ = attach(globals(), _HOME)
