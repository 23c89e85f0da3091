"""Best of uniformly random feasible states: the null model of solver comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO, CardinalityQUBO
from problems.knapsack import fill
from solvers._numba import Array, jit
from solvers.base import Capabilities, Outcome, Problem, Request, Solver, State
from solvers.errors import OptionError
from solvers.solution import Stop

Vector = npt.NDArray[np.float64]

#: Multiplications of a batch: about 10 ms, between checks of time and callback.
_BATCH_WORK = 5e7
_LARGEST_BATCH = 4096


@dataclass(frozen=True)
class RandomSampling(Solver):
    """Draw independent, uniformly random feasible states and keep the best.

    The best ``num_reads`` of all states drawn are returned. ``info`` has the number of ``states``
    drawn, and the ``mean`` and ``std`` (standard deviation) of their energies, which estimate
    those of all feasible states.

    Parameters
    ----------
    draws : int, optional
        States drawn for each read. By default as many as the time limit allows, and 10 000
        without one.
    """

    draws: int | None = None

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "best of uniformly random feasible states; the null"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, budgets=True, callback=True)

    def __post_init__(self) -> None:
        if self.draws is not None and self.draws < 1:
            raise OptionError(f"draws is {self.draws}; it must be 1 or more")

    @classmethod
    @cache
    def warm_up(cls) -> None:
        """Compile the kernel, or load it from its cache."""
        cls(draws=1).run(CardinalityQUBO(np.eye(4), 2), Request(seed=0))

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Draw in batches; the initial state, if there is one, is the first incumbent."""
        sampler = Sampler(problem, request.seed)
        return self._keep_best(problem, request, sampler.draw, _batch_size(problem), 10_000)

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Set variables in random order until the budget is saved; 1000 times by default.

        The states are not uniformly distributed over the feasible ones, most of which save more
        than the budget.
        """
        rng = np.random.default_rng(request.seed)
        size = max(1, _batch_size(problem) // 64)
        return self._keep_best(
            problem, request, lambda count: _draw_to_budget(problem, rng, count), size, 1000
        )

    def _keep_best(
        self,
        problem: Problem,
        request: Request,
        draw: Callable[[int], State],
        size: int,
        default: int,
    ) -> Outcome:
        """Draw in batches, and keep the best states."""
        kept = _Best(problem, request)
        left: float = np.inf
        if self.draws is not None or request.time_limit is None:
            left = (self.draws or default) * request.num_reads
        stop = Stop.ITERATION_LIMIT
        while left > 0 and not kept.stopped:
            states = draw(int(min(size, left)))
            kept.add(states, problem.energy(states))
            left -= len(states)
            if left > 0 and request.remaining <= 0:
                stop = Stop.TIME_LIMIT
                break
        return Outcome(kept.states, Stop.INTERRUPTED if kept.stopped else stop, info=kept.moments())


def _draw_to_budget(problem: BudgetQUBO, rng: np.random.Generator, count: int) -> State:
    """Set variables in random order until the budget is saved, ``count`` times."""
    none = np.zeros(problem.n, bool)
    return np.array([fill(problem, rng.permutation(problem.n), none) for _ in range(count)])


class Sampler:
    """Uniformly random feasible states of a problem.

    Parameters
    ----------
    problem : CardinalityQUBO
    seed : int, optional
    """

    def __init__(self, problem: CardinalityQUBO, seed: int | None) -> None:
        self._rng = np.random.default_rng(seed)
        self._order = np.concatenate(problem.group_members)
        self._sizes = problem.group_sizes
        self._cardinalities = problem.cardinalities

    def draw(self, count: int) -> State:
        """Return ``count`` independent states, shape (count, n)."""
        states = np.zeros((count, len(self._order)), np.uint8)
        _draw(self._order, self._sizes, self._cardinalities, self._rng, states)
        return states


class _Best:
    """The best states so far, and the moments of all energies."""

    def __init__(self, problem: Problem, request: Request) -> None:
        self.problem, self.request = problem, request
        self.states = np.zeros((0, problem.n), np.uint8)
        self.energies: Vector = np.zeros(0)
        self.lowest = np.inf
        self.stopped = False
        """Whether the callback has requested a stop."""
        self.count, self.sum, self.squares, self.origin = 0, 0.0, 0.0, 0.0
        if request.initial_state is not None:
            start = request.initial_state[None]
            self._keep(start, problem.energy(start))

    def add(self, states: State, energies: Vector) -> None:
        """Add drawn states."""
        if not self.count:  # sums relative to the first energy: a large offset costs no precision
            self.origin = float(energies[0])
        away = energies - self.origin
        self.count += len(energies)
        self.sum += float(away.sum())
        self.squares += float(away @ away)
        self._keep(states, energies)

    def _keep(self, states: State, energies: Vector) -> None:
        reads = self.request.num_reads
        better = energies < (self.energies[-1] if len(self.energies) == reads else np.inf)
        merged = np.concatenate([self.energies, energies[better]])
        order = np.argsort(merged, kind="stable")[:reads]
        self.states = np.concatenate([self.states, states[better]])[order]
        self.energies = merged[order]
        if self.energies[0] < self.lowest:
            # Evaluated alone: a state drawn again is not a new incumbent.
            energy = self.problem.energy(self.states[0])
            if energy < self.lowest:
                self.lowest = energy
                self.stopped = self.request.report(energy, x=self.states[0])

    def moments(self) -> dict[str, float]:
        """Return number, mean and standard deviation of the energies drawn."""
        if not self.count:
            return {"states": 0}
        mean = self.sum / self.count
        variance = max(0.0, self.squares / self.count - mean**2)
        return {"states": self.count, "mean": self.origin + mean, "std": float(np.sqrt(variance))}


def _batch_size(problem: Problem) -> int:
    rows, columns = problem.held.coefficients.shape
    return int(np.clip(_BATCH_WORK / (max(rows, 1) * columns), 1, _LARGEST_BATCH))


@jit
def _draw(
    order: Array, sizes: Array, cardinalities: Array, rng: np.random.Generator, states: Array
) -> None:
    """Fill rows by the first steps of a Fisher-Yates shuffle of each group's variables.

    ``order`` lists the variables group by group, and is left shuffled: a shuffle is uniform from
    any initial order. The smaller of ones and zeros are drawn.
    """
    for row in range(len(states)):
        first = 0
        for g in range(len(sizes)):
            size, k = sizes[g], cardinalities[g]
            few = min(k, size - k)
            if few < k:
                for t in range(first, first + size):
                    states[row, order[t]] = 1
            for t in range(few):
                a = first + t
                b = a + int(rng.random() * (size - t))
                order[a], order[b] = order[b], order[a]
                states[row, order[a]] = 1 if few == k else 0
            first += size
