"""Choice of the angles: a linear ramp, or an optimiser that starts there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from solvers.base import Request

Angles = npt.NDArray[np.float64]

#: Names of optimisers; "ramp" uses none.
OPTIMIZERS = ("cobyla", "l-bfgs", "nelder-mead", "powell", "ramp")
#: Slopes Δγ and Δβ of the default ramp (see :func:`default_slopes`).
_GAMMA, _BETA = 1.75, 1.5


class Source(Protocol):
    """A simulated or measured circuit."""

    def objective(self, angles: Angles, tail: float) -> float:
        """Mean energy of the best ``tail`` of the distribution, or of the measurements."""


class Differentiable(Source, Protocol):
    """A circuit simulated exactly."""

    def gradient(self, angles: Angles, tail: float) -> tuple[float, Angles]:
        """Objective and its derivative by the angles."""


def ramp(p: int, slopes: tuple[float, float]) -> Angles:
    """Return ``γ₁ … γ_p, β₁ … β_p`` of a linear ramp (LR-QAOA, arXiv 2405.09169).

    γ rises to ``Δγ`` while β falls from ``Δβ``: in layer l = 1 … p, ``γ_l = Δγ l/p`` and
    ``β_l = Δβ (1 - (l - 1)/p)``.

    Parameters
    ----------
    p : int
    slopes : (float, float)
        Δγ and Δβ.
    """
    layer = np.arange(1, p + 1)
    return np.concatenate([slopes[0] * layer / p, slopes[1] * (1 - (layer - 1) / p)])


def default_slopes(degree: float) -> tuple[float, float]:
    """Return Δγ and Δβ.

    Energies are in units of their standard deviation, so that one Δγ serves all problems; Δβ is
    divided by the number of gates of the mixer on each qubit, which add up.

    Parameters
    ----------
    degree : float
        Mean number of gates of the mixer on a qubit.
    """
    return _GAMMA, _BETA / max(degree, 1.0)


class Trace:
    """Objective function for an optimiser; records the best angles and the number of calls."""

    def __init__(self, source: Source, tail: float, most: int, request: Request):
        self.source, self.tail, self.most, self.request = source, tail, most, request
        self.count, self.value, self.angles = 0, float("inf"), np.zeros(0)

    def __call__(self, angles: Any) -> float:
        """Evaluate angles, shape (2p,)."""
        vector = self._checked(angles)
        return self._record(vector, self.source.objective(vector, self.tail))

    def gradient(self, angles: Any) -> tuple[float, Angles]:
        """Evaluate angles and the derivative by them, which counts as one evaluation."""
        vector = self._checked(angles)
        value, slope = cast(Differentiable, self.source).gradient(vector, self.tail)
        return self._record(vector, value), slope

    def _checked(self, angles: Any) -> Angles:
        if self.count and (self.count >= self.most or self.request.remaining == 0):
            raise _BudgetExceeded
        return np.array(angles, dtype=np.float64)

    def _record(self, angles: Angles, value: float) -> float:
        self.count += 1
        if value < self.value or self.count == 1:
            self.value, self.angles = value, angles
        return value


class _BudgetExceeded(Exception):  # noqa: N818
    """Raised to stop an optimiser when evaluations or time run out."""


def minimise(
    trace: Trace, starts: Sequence[Angles], optimizer: Any, rng: np.random.Generator
) -> None:
    """Evaluate the starts, then optimise from the best of them; ``trace`` keeps the best angles.

    Parameters
    ----------
    trace : Trace
    starts : sequence of ndarray, shape (2p,)
        One alone is not evaluated before the optimiser does.
    optimizer : str or qiskit_optimization.optimizers.Optimizer
        One of :data:`OPTIMIZERS`; "ramp" stops after the starts.
    rng : numpy.random.Generator
        Seeds an optimiser of qiskit-optimization.
    """
    with suppress(_BudgetExceeded):
        if len(starts) > 1 or optimizer == "ramp":
            for angles in starts:
                trace(angles)
        begin = starts[0] if len(starts) == 1 else trace.angles
        if optimizer == "ramp":
            return
        if isinstance(optimizer, str):
            from scipy.optimize import minimize

            if optimizer == "l-bfgs":
                minimize(trace.gradient, begin, method="L-BFGS-B", jac=True)
            else:
                options = {"rhobeg": 0.2} if optimizer == "cobyla" else {}
                minimize(trace, begin, method=optimizer, options=options)
        else:
            from qiskit_optimization.utils import algorithm_globals

            algorithm_globals.random_seed = int(rng.integers(2**31))
            optimizer.minimize(trace, begin)
