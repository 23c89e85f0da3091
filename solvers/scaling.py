"""Scaling of problems to ordinary size for solvers, and of their answers back."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from problems.scaling import Scaled
from solvers.base import Outcome, Problem, Request

#: Options that are energies are limited to ``2**-_LIMIT … 2**_LIMIT`` after scaling: beyond, they
#: dominate the coefficients, or are negligible, whatever their value.
_LIMIT = 200


def scale_option(option: float, exponent: int) -> float:
    """Multiply an option that is an energy by ``2**exponent``, for :meth:`Solver.scaled`."""
    if option == 0:
        return option
    size = math.frexp(option)[1] + exponent
    if abs(size) > _LIMIT:
        exponent += max(-_LIMIT, min(_LIMIT, size)) - size
    return math.ldexp(option, exponent)


def scaled_request(request: Request, scaled: Scaled) -> Request:
    """Return a request whose callback gets energies in the units of the original problem."""
    callback = request.callback
    if callback is None or scaled.exponent == 0:
        return request
    return dataclasses.replace(
        request, callback=lambda seconds, energy: callback(seconds, scaled.restore(energy))
    )


def restored_outcome(outcome: Outcome, problem: Problem, scaled: Scaled) -> Outcome:
    """Convert a checked answer to the scaled problem to one to the original problem.

    Bounds are converted. ``info["exponent"]`` is that of the power of two; other reports of the
    backend (a tolerance, a penalty) are in the units of the scaled problem.
    """
    if scaled.exponent == 0:
        return outcome
    bound = outcome.bound
    if bound is not None and (bound := scaled.restore_bound(bound)) is not None:
        states = problem.as_states(outcome.samples).reshape(-1, problem.n)
        energies = problem.energy(states[problem.is_feasible(states)])
        least = float(np.min(energies, initial=np.inf))
        # Rounding of subnormal energies may take them below a true bound. A bound that is further
        # above is wrong, and is refuted in finalize.
        rounding = problem.n**2 * np.finfo(float).smallest_subnormal
        if least < bound <= least + rounding:
            bound = least
    info = outcome.info | {"exponent": scaled.exponent}
    return dataclasses.replace(outcome, bound=bound, info=info)
