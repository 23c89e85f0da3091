"""Incumbent, bound and proof of an exact search on a reduced problem."""

from __future__ import annotations

from typing import Any

import numpy as np

from problems import CardinalityQUBO
from problems.presolve import Presolved, presolve
from solvers.base import Outcome, Request, State
from solvers.exact.convex import TIE
from solvers.exact.fixing import fix_by_reduced_costs
from solvers.solution import Stop


class ReducedSearch:
    """State of one call of an exact backend that searches a reduced problem.

    Parameters
    ----------
    problem : CardinalityQUBO
    request : Request
    relax : bool
        Whether to fix variables by the convex relaxation (:mod:`solvers.exact.fixing`); else by
        dominance (:mod:`problems.presolve`).

    Attributes
    ----------
    x, energy
        The incumbent, with the offset.
    bound
        Best lower bound so far; -inf if there is none.
    cutoff
        Every state of lower energy is in the reduced problem; inf if the reduction keeps all
        states.
    least
        Energies closer than this count as equal.
    rest : Presolved
        The reduced problem, and the map back.
    settled : bool
        Whether all states of the reduced problem have equal energies, so that no search is needed.
    """

    def __init__(self, problem: CardinalityQUBO, request: Request, relax: bool) -> None:
        self.problem, self.request = problem, request
        self.energy, self.bound, self.cutoff, self.least = np.inf, -np.inf, np.inf, 0.0
        self.stop = Stop.PROVEN
        self.rest: Presolved
        start = request.initial_state
        if relax:
            reduced = fix_by_reduced_costs(problem, request)
            self.rest, start = reduced.rest, reduced.x
            self.bound, self.cutoff = reduced.bound, reduced.cutoff
            self.least = reduced.tolerance
        else:
            self.rest = presolve(problem, pairs_up_to=128)
            self.least = TIE * float(np.abs(problem.float64_matrix()).sum())
            if start is None:
                start = problem.minimise_linear(problem.diagonal)
        self.offer(start)
        rest = self.rest.problem
        spread = _spread(rest)
        self.settled = spread <= self.least or not rest.n
        if self.settled:
            self.offer(self.rest.restore(self.rest.reduce(self.x)))
            lower = rest.offset - spread if rest.n else self.energy
            self.raise_bound(lower)
        self.info: dict[str, Any] = {"free": rest.n}

    def offer(self, x: State) -> None:
        """Make a state the incumbent if it is better; the callback may stop the run."""
        energy = self.problem.energy(x)
        if energy < self.energy:
            self.x, self.energy = x, energy
            if self.request.report(energy, x=x):
                self.stop = Stop.INTERRUPTED

    def raise_bound(self, lower: float) -> None:
        """Update the bound from one on the reduced problem; other states may be at the cutoff."""
        self.bound = max(self.bound, min(lower, self.cutoff))

    def outcome(self, build: float, tolerance: float) -> Outcome:
        """Return incumbent and bound, proved optimal if they meet.

        Parameters
        ----------
        build : float
            Seconds spent on the model.
        tolerance : float
            Share of the energy (offset left out) that a proof may leave open.
        """
        share = tolerance * abs(self.energy - self.problem.offset)
        allowed = max(share, 2 * self.least)
        proven = self.energy - self.bound <= allowed
        if proven:
            self.stop = Stop.PROVEN
        elif self.stop is Stop.PROVEN:
            self.stop = Stop.CONVERGED
        return Outcome(
            samples=self.x[None],
            stop=self.stop,
            proven=proven,
            bound=None if self.bound == -np.inf else min(self.bound, self.energy),
            build_seconds=build,
            info=self.info | {"tolerance": allowed},
        )


def _spread(problem: CardinalityQUBO) -> float:
    """Return a bound on ``|energy - offset|`` of all states, without forming ``Q``."""
    first, second = problem.peaks
    if problem.is_factored:
        return problem.n * (len(problem.A) * problem.n * first**2 + second)
    return problem.n**2 * first
