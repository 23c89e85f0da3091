"""Descent by swaps from random states: a small solver that lives in its own distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from problems import CardinalityQUBO
from solvers import Capabilities, Outcome, Request, Solver, Stop


@dataclass(frozen=True)
class Descent(Solver):
    """Swap a one for a zero of its group while that lowers the energy.

    Parameters
    ----------
    max_swaps : int
        Swaps of a read at most.
    """

    max_swaps: int = 10_000

    name: ClassVar[str] = "descent"
    summary: ClassVar[str] = "steepest descent by swaps (a worked example)"
    capabilities: ClassVar[Capabilities] = Capabilities(max_n=4096, groups=True, callback=True)

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Descend from the initial state, then from random ones, while there is time."""
        rng = np.random.default_rng(request.seed)
        states, best, stop = [], np.inf, Stop.CONVERGED
        for read in range(request.num_reads):
            if read == 0 and request.initial_state is not None:
                x = request.initial_state.copy()
            else:
                x = random_state(problem, rng)
            stop = self.descend(problem, x, request)
            states.append(x)
            if (energy := problem.energy(x)) < best:
                best = energy
                if request.report(best, x=x):
                    stop = Stop.INTERRUPTED
            if stop is not Stop.CONVERGED:
                break
        return Outcome(np.array(states), stop)

    def descend(self, problem: CardinalityQUBO, x: np.ndarray[Any, Any], request: Request) -> Stop:
        """Improve ``x`` in place, one best swap of one group at a time."""
        fields = problem.fields(x)
        for _ in range(self.max_swaps):
            if request.remaining == 0:
                return Stop.TIME_LIMIT
            i, j, change = best_swap(problem, x, fields)
            if change >= 0:
                return Stop.CONVERGED
            x[i], x[j] = 0, 1
            # Clearing i and setting j moves every field but, by convention, one's own.
            row_i, row_j = problem.Q[i].astype(np.float64), problem.Q[j].astype(np.float64)
            own_i, own_j = fields[i], fields[j]
            fields += 2 * (row_j - row_i)
            fields[i], fields[j] = own_i + 2 * row_j[i], own_j - 2 * row_i[j]
        return Stop.ITERATION_LIMIT


def best_swap(
    problem: CardinalityQUBO, x: np.ndarray[Any, Any], fields: np.ndarray[Any, Any]
) -> tuple[int, int, float]:
    """Return ``(i, j, change)``: clear the one ``i``, set the zero ``j`` of the same group."""
    best = (0, 0, 0.0)
    for members in problem.group_members:
        ones, zeros = members[x[members] == 1], members[x[members] == 0]
        if len(ones) and len(zeros):
            couplings = problem.Q[np.ix_(ones, zeros)].astype(np.float64)
            changes = fields[zeros][None, :] - fields[ones][:, None] - 2 * couplings
            i, j = np.unravel_index(changes.argmin(), changes.shape)
            if changes[i, j] < best[2]:
                best = int(ones[i]), int(zeros[j]), float(changes[i, j])
    # Below the rounding of the fields, a change is rounding: without this the search may cycle.
    return best if best[2] < -1e-12 * np.abs(fields).max() else (0, 0, 0.0)


def random_state(problem: CardinalityQUBO, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Draw a feasible state."""
    x = np.zeros(problem.n, dtype=np.uint8)
    for members, k in zip(problem.group_members, problem.cardinalities, strict=True):
        x[rng.permutation(members)[:k]] = 1
    return x
