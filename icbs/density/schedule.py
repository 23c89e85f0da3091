"""Schedules of the density: the densities after each step of a gradual pruning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from icbs.errors import ConfigError
from problems.suggest import did_you_mean

MAX_STEPS = 1000

_SPARSITY: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "cubic": lambda t: 1 - (1 - t) ** 3,
    "cosine": lambda t: (1 - math.cos(math.pi * t)) / 2,
    "late-cubic": lambda t: t**3,
    "late-cosine": lambda t: 1 - math.cos(math.pi * t / 2),
}
"""Share of the way from the first to the final sparsity after a share ``t`` of the steps."""
DECAYS = (*_SPARSITY, "exponential")
"""Names of the schedules."""


def check_decay(name: str) -> str:
    """Return the name of a schedule.

    Raises
    ------
    ConfigError
        If there is none of this name.
    """
    if name not in DECAYS:
        raise ConfigError(
            f"unknown decay {name!r}{did_you_mean(name, DECAYS)}; known: {', '.join(DECAYS)}"
        )
    return name


def density_after(step: int, steps: int, final: float, decay: str, start: float = 1.0) -> float:
    """Return the density after some of the steps.

    With ``t = step / steps``, and the sparsity ``s = 1 - density`` from ``s₀`` to ``s_f``:

    - ``linear``: ``s = s₀ + (s_f - s₀) t``
    - ``cubic``: ``s = s_f + (s₀ - s_f)(1 - t)³`` (Zhu and Gupta, arXiv 1710.01878, equation 1):
      most weights are pruned at first
    - ``cosine``: ``s = s_f + (s₀ - s_f)(1 + cos πt) / 2``
    - ``exponential``: ``density = start (final / start)ᵗ``: each step prunes the same share of
      the weights that are left
    - ``late-cubic``, ``late-cosine``: ``s₀ + (s_f - s₀) t³`` and
      ``s₀ + (s_f - s₀)(1 - cos πt/2)``: most weights are pruned at last; the ``cube`` and
      ``cos`` of Intel's Neural Compressor

    Parameters
    ----------
    step : int
        From 0 to ``steps``.
    steps : int
    final : float
        Density after the last step, which is reached exactly.
    decay : str
        A name of :data:`DECAYS`.
    start : float, default 1.0
        Density before the first step.
    """
    if step == steps:
        return final
    if decay == "exponential":
        return float(start * (final / start) ** (step / steps))
    return float(start + (final - start) * _SPARSITY[decay](step / steps))


def density_steps(
    final: float, steps: int, decay: str = "cubic", start: float = 1.0
) -> list[float]:
    """Return the densities after each step, which decrease to the final one.

    Parameters
    ----------
    final, decay, start
        As for :func:`density_after`.
    steps : int
        Number of steps; 1 is one-shot pruning.

    Raises
    ------
    ConfigError
        For an unknown decay, a number of steps out of range, or a start below the final density.

    Examples
    --------
    >>> density_steps(0.1, 3, "linear")
    [0.7, 0.4, 0.1]
    """
    check_decay(decay)
    if not 1 <= steps <= MAX_STEPS:
        raise ConfigError(f"steps = {steps}: must be between 1 and {MAX_STEPS}")
    if not 0 < final < start <= 1:
        raise ConfigError(
            f"a schedule from density {start:g} to {final:g} prunes nothing, or leaves the range "
            "(0, 1]; choose a start above the final density"
        )
    found = [density_after(step, steps, final, decay, start) for step in range(1, steps + 1)]
    return [round(value, 12) for value in found[:-1]] + [final]


def check_densities(densities: Sequence[float], final: float | None) -> list[float]:
    """Return given densities of the steps, which must decrease to the final density.

    Raises
    ------
    ConfigError
        If they don't, are out of range, or end at another density than that of the run.
    """
    found = [float(value) for value in densities]
    if not found or not all(0 < value < 1 for value in found):
        raise ConfigError(f"steps = {found}: give densities between 0 and 1")
    if any(after >= before for before, after in pairwise(found)):
        raise ConfigError(f"steps = {found}: each density must be below the one before it")
    if final is not None and found[-1] != final:
        raise ConfigError(
            f"the schedule ends at density {found[-1]:g}, and the run's density is {final:g}; "
            f"end it at {final:g}, or leave density out"
        )
    return found
