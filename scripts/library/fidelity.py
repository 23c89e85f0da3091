"""Comparison of a rounded problem with the pruner's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from problems import CardinalityQUBO
from scripts.library.parts import Parts, energies
from solvers import solve

Array = npt.NDArray[Any]

#: Largest difference of energies at the best states, as a share of the best energy.
LARGEST_DEVIATION = 0.01

SEEDS = 5
SECONDS = 0.3
NEIGHBOURS = 50


@dataclass(frozen=True)
class Fidelity:
    """Differences between the energies of a rounded problem and those of the pruner's own."""

    bits: int
    """Bits of the largest entry of the factor."""
    spearman: float
    """Rank correlation of the energies of random feasible states."""
    deviation: float
    """Root mean square difference of those energies, over their standard deviation."""
    at_best: float
    """Largest difference at the best states found, over the best energy's depth."""


@dataclass(frozen=True)
class Reference:
    """States of a block with their energies before rounding."""

    parts: Parts
    random: Array
    """Feasible states: half at random, half near the status quo."""
    random_energies: Array
    best: Array
    """Best states of several searches, and their neighbours."""

    @classmethod
    def of(cls, parts: Parts, known: Sequence[Array] = ()) -> Reference:
        """Search a block as the pruner made it, and draw 2000 random states.

        Known good states are used next to those of the search.
        """
        rng, problem = np.random.default_rng(0), parts.problem
        random = [
            shuffled(rng, problem, parts.start, share) for share in (1.0, 0.1) for _ in range(1000)
        ]
        best = best_states(problem, parts.start, known)
        return cls(parts, np.array(random), problem.energy(random), best)

    def compare(self, rounded: CardinalityQUBO, bits: int) -> Fidelity:
        """Compare a rounded problem, at its own best states too: these use rounding errors."""
        one, two = self.random_energies, rounded.energy(self.random)
        states = np.concatenate([self.best, best_states(rounded, self.parts.start)])
        exact = energies(self.parts, states.astype(np.float64) - self.parts.start)
        difference, depth = np.abs(rounded.energy(states) - exact).max(), -exact.min()
        return Fidelity(
            bits,
            float(spearmanr(one, two).statistic),
            float(np.sqrt(np.mean(np.square(one - two))) / np.std(one)),
            float(difference / depth) if depth > 0 else float("inf"),
        )


def best_states(problem: CardinalityQUBO, start: Array, known: Sequence[Array] = ()) -> Array:
    """Search from several seeds; return the states found, and neighbours half as deep or more.

    Neighbours differ by one to four exchanges of a one and a zero of the same group.
    """
    rng, ends = np.random.default_rng(0), list(known)
    for seed in range(SEEDS):
        found = solve(problem, "anneal", seed=seed, time_limit=SECONDS, initial_state=start).x
        assert found is not None
        ends.append(found)
    near = [exchanged(rng, problem, end) for end in ends for _ in range(NEIGHBOURS)]
    states = [start, *ends, *near]
    found_energies = problem.energy(states)
    gained = found_energies[0] - found_energies
    best: Array = np.unique(np.array(states)[gained >= gained.max() / 2], axis=0)
    return best


def exchanged(rng: np.random.Generator, problem: CardinalityQUBO, x: Array) -> Array:
    """Exchange one to four pairs of a one and a zero, at random, each within a group."""
    x = x.copy()
    for _ in range(rng.integers(1, 5)):
        one = rng.choice(np.flatnonzero(x))
        zeros = np.flatnonzero((x == 0) & (problem.groups == problem.groups[one]))
        if len(zeros):
            x[[one, rng.choice(zeros)]] = 0, 1
    return x


def shuffled(
    rng: np.random.Generator, problem: CardinalityQUBO, start: Array, share: float
) -> Array:
    """Deal a random share of a state's entries out anew, within their groups."""
    x = start.copy()
    for group in range(problem.num_groups):
        own = np.flatnonzero(problem.groups == group)
        some = rng.permutation(own)[: max(2, round(share * len(own)))]
        x[some] = x[rng.permutation(some)]
    return x
