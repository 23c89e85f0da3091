"""Solvers see problems of ordinary size: scaled at the door, and scaled back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from problems import CardinalityQUBO
from problems.scaling import Scaled
from solvers.base import Outcome, Request, Solver

#: Options that are energies lie within ``2**-_LIMIT … 2**_LIMIT`` after scaling: beyond, they
#: outweigh the coefficients, or are outweighed, whatever their value.
_LIMIT = 200


def run(solver: Solver, problem: CardinalityQUBO, request: Request) -> Outcome:
    """Run a solver on a problem brought to ordinary size (:mod:`problems.scaling`).

    Bounds and the energies that a callback sees are those of the problem itself. Where it
    was scaled, ``info["exponent"]`` is that of the power of two, and what else the backend
    reports (a tolerance, a penalty) is in the units of the scaled problem.
    """
    scaled = Scaled.of(problem)
    if scaled.exponent == 0:
        return solver.run(problem, request)
    outcome = solver.scaled(scaled.exponent).run(scaled.problem, _asked(request, scaled))
    return _restored(outcome, problem, scaled)


def run_batch(
    solver: Solver, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
) -> Iterator[Outcome]:
    """Run a solver's own batch, as :func:`run` does; its options are not scaled.

    Yields as many outcomes as the solver returns, which is for the caller to check.
    """
    scaled = [Scaled.of(problem) for problem in problems]
    asked = [_asked(r, s) if s.exponent else r for r, s in zip(requests, scaled, strict=True)]
    outcomes = solver.run_batch([s.problem for s in scaled], asked)
    for i, outcome in enumerate(outcomes):
        plain = i >= len(scaled) or scaled[i].exponent == 0
        yield outcome if plain else _restored(outcome, problems[i], scaled[i])


def times_power(option: float, exponent: int) -> float:
    """Return an option that is an energy, times ``2**exponent``, for :meth:`Solver.scaled`."""
    if option == 0:
        return option
    size = math.frexp(option)[1] + exponent
    if abs(size) > _LIMIT:
        exponent += max(-_LIMIT, min(_LIMIT, size)) - size
    return math.ldexp(option, exponent)


def _asked(request: Request, scaled: Scaled) -> Request:
    callback = request.callback
    if callback is None:
        return request
    return dataclasses.replace(
        request, callback=lambda seconds, energy: callback(seconds, scaled.restore(energy))
    )


def _restored(outcome: Outcome, problem: CardinalityQUBO, scaled: Scaled) -> Outcome:
    bound = outcome.bound
    if bound is not None and (bound := scaled.restore_bound(bound)) is not None:
        # Where energies are subnormal, their own rounding may take them below the bound.
        states = problem.as_states(outcome.samples).reshape(-1, problem.n)
        energies = problem.energy(states[problem.is_feasible(states)])
        bound = min(bound, float(np.min(energies, initial=np.inf)))
    info = outcome.info | {"exponent": scaled.exponent}
    return dataclasses.replace(outcome, bound=bound, info=info)
