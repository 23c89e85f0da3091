"""Solutions: states, energies, status and bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt


class Status(Enum):
    """Knowledge about :attr:`Solution.x` (after MathOpt's termination reasons)."""

    OPTIMAL = "optimal"
    """Proven to have the lowest energy of all feasible states."""
    FEASIBLE = "feasible"
    """Feasible, without proof of optimality."""
    NO_SOLUTION_FOUND = "no solution found"
    """No sample is feasible, and none could be repaired."""


class Stop(Enum):
    """Reason for stopping (after MathOpt's limits)."""

    PROVEN = "proven"
    """The search space is exhausted."""
    CONVERGED = "converged"
    """The method's own stopping criterion was met."""
    TIME_LIMIT = "time limit"
    ITERATION_LIMIT = "iteration limit"
    """Sweeps, reads, nodes or shots ran out."""
    INTERRUPTED = "interrupted"
    """Stopped by the callback or the user."""


@dataclass(frozen=True)
class Timing:
    """Wall seconds spent by phase."""

    build: float = 0.0
    """Converting the problem to the backend's form."""
    solve: float = 0.0
    """Searching."""
    decode: float = 0.0
    """Reading samples back and recomputing energies."""

    @property
    def total(self) -> float:
        """Sum of the phases."""
        return self.build + self.solve + self.decode


@dataclass(frozen=True)
class Solution:
    """The answer of a solver to one problem.

    Energies are recomputed in float64 from the problem; those of the backend are not used.
    """

    x: npt.NDArray[np.uint8] | None
    """Best feasible state, shape (n,); ``x[i] = 1`` means pruned. None if there is none."""
    energy: float
    """Energy of :attr:`x`; infinity if there is none."""
    status: Status
    stop: Stop
    bound: float | None
    """A true lower bound on every feasible energy, or None."""
    samples: npt.NDArray[np.uint8]
    """All states returned, shape (reads, n): feasible first, then by energy."""
    energies: npt.NDArray[np.float64]
    """Energies of :attr:`samples`, shape (reads,)."""
    feasible: npt.NDArray[np.bool_]
    """Mask of the :attr:`samples` that satisfy the cardinality, shape (reads,)."""
    repaired: npt.NDArray[np.bool_]
    """Mask of the :attr:`samples` that were infeasible and were repaired."""
    timing: Timing
    info: dict[str, Any] = field(default_factory=dict)
    """Backend and version, seed, options, problem hash (None for a problem held on a device: ask
    the problem for it), and the backend's report. If the problem was scaled by a power of two
    (:mod:`solvers.scaling`), the report is in scaled units, and ``exponent`` is that of the
    power."""

    @property
    def gap(self) -> float | None:
        """Relative gap ``(energy - bound) / |energy|`` (absolute at energy 0), or None."""
        if self.bound is None or self.x is None:
            return None
        distance = max(0.0, self.energy - self.bound)
        return distance / abs(self.energy) if self.energy else distance

    @property
    def is_optimal(self) -> bool:
        """Whether :attr:`x` is proven optimal."""
        return self.status is Status.OPTIMAL
