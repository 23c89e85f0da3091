"""Exact state-vector simulation, restricted to the reachable states.

Every gate of the mixer rotates pairs of basis states, and the cost is a phase of each state. In
the cardinality form, only feasible states are reached: C(14, 7) = 3432 amplitudes instead of
16384.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.base import State

Partners = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


@dataclass(frozen=True)
class Simulator:
    """Simulator over given basis states, with equal initial amplitudes.

    Parameters
    ----------
    states : ndarray of uint8, shape (states, n)
    energies : ndarray of float64, shape (states,)
        Scaled to an order of magnitude of 1.
    rotations : list of (ndarray, ndarray)
        The mixer's gates in order: positions of the pairs of states that each of them rotates.
    """

    states: State
    energies: npt.NDArray[np.float64]
    rotations: list[Partners]

    def probabilities(self, angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Probability of each state after the layers ``γ₁ … γ_p, β₁ … β_p``."""
        gammas, betas = np.split(np.asarray(angles, dtype=np.float64), 2)
        size = len(self.energies)
        psi = np.full(size, 1 / np.sqrt(size), dtype=np.complex128)
        for gamma, beta in zip(gammas, betas, strict=True):
            psi *= np.exp(-1j * gamma * self.energies)
            cos, sin = np.cos(beta), 1j * np.sin(beta)
            for a, b in self.rotations:
                left, right = psi[a], psi[b]
                psi[a] = cos * left + sin * right
                psi[b] = sin * left + cos * right
        found: npt.NDArray[np.float64] = np.abs(psi) ** 2
        return found / found.sum()

    def objective(self, angles: npt.NDArray[np.float64], tail: float) -> float:
        """Mean energy of the best ``tail`` of the distribution, exactly."""
        return tail_mean(self.energies, self.probabilities(angles), tail)

    def draw(self, angles: npt.NDArray[np.float64], shots: int, rng: np.random.Generator) -> State:
        """Measure states, shape (shots, n)."""
        return self.states[rng.choice(len(self.states), shots, p=self.probabilities(angles))]


def tail_mean(
    energies: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], tail: float
) -> float:
    """Mean of the lowest ``tail`` of weighted energies (CVaR, arXiv 1907.04769).

    Parameters
    ----------
    energies, weights : ndarray of float64, shape (count,)
        Weights add up to 1.
    tail : float
        In (0, 1]; 1 gives the plain mean.
    """
    order = np.argsort(energies)
    reached = np.minimum(np.cumsum(weights[order]), tail)
    return float(np.diff(reached, prepend=0.0) @ energies[order] / reached[-1])


def feasible_states(problem: CardinalityQUBO) -> State:
    """List all feasible states, shape (states, n)."""
    choices = [
        list(itertools.combinations(members, int(k)))
        for members, k in zip(problem.group_members, problem.cardinalities, strict=True)
    ]
    rows = list(itertools.product(*choices))
    states = np.zeros((len(rows), problem.n), dtype=np.uint8)
    for state, chosen in zip(states, rows, strict=True):
        state[list(itertools.chain.from_iterable(chosen))] = 1
    return states


def all_states(n: int) -> State:
    """List all ``2ⁿ`` states, shape (2ⁿ, n)."""
    return (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(np.uint8)


def exchanges(states: State, pairs: Iterable[tuple[int, int]]) -> list[Partners]:
    """Return, for each pair of variables, the pairs of states that differ by exchanging them."""
    keys = states @ (1 << np.arange(states.shape[1], dtype=np.int64))
    order = np.argsort(keys)
    ordered, found = keys[order], []
    for i, j in pairs:
        here = np.flatnonzero((states[:, i] == 1) & (states[:, j] == 0))
        there = order[np.searchsorted(ordered, keys[here] - (1 << i) + (1 << j))]
        found.append((here.astype(np.int32), there.astype(np.int32)))
    return found


def flips(states: State) -> list[Partners]:
    """Return, for each variable, the pairs of states that differ only in it; needs all ``2ⁿ``."""
    everything = np.arange(len(states), dtype=np.int32)
    clear = [everything[everything >> i & 1 == 0] for i in range(states.shape[1])]
    return [(here, here + np.int32(1 << i)) for i, here in enumerate(clear)]
