"""Exact simulation of the circuits, restricted to the states that they reach.

Every gate of the mixer rotates pairs of basis states, and the cost is a phase of each state. In
the cardinality form only feasible states are reached: C(20, 10) = 184,756 amplitudes instead of
a million. Gates are applied one by one in the order of the circuit, so that the simulation is
exact for the circuit, and not for a mixer that the circuit only approximates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.base import State
from solvers.qaoa.circuit import mixer_pairs
from solvers.qaoa.kernels import (
    apply_cost,
    apply_exchanges,
    apply_flips,
    undo_cost,
    undo_exchanges,
    undo_flips,
)
from solvers.qaoa.rotations import Rotations, exchanges, flips
from solvers.qaoa.space import MAX_STATES, Space, count_feasible, feasible_space, full_space
from solvers.qaoa.start import Start
from solvers.random_sampling import Sampler

Vector = npt.NDArray[np.float64]

#: Random states that estimate the energies' spread where they are too many to be listed.
_DRAWS = 4096


@dataclass(frozen=True)
class Simulator:
    """Simulator of a circuit.

    Parameters
    ----------
    space : Space
        The states that the circuit reaches.
    energies : ndarray of float64, shape (states,)
        Scaled to an order of magnitude of 1.
    rotations : Rotations
        The pairs of states that the mixer's gates rotate, in order.
    initial : ndarray of float64, shape (states,)
        Initial amplitudes.
    scale : float
        The unit of ``energies``.
    tilts : ndarray of float64, shape (n,), optional
        In the penalty form, angle θ of the axis ``sin θ X + cos θ Z`` of each qubit's mixer.
    """

    space: Space
    energies: Vector
    rotations: Rotations
    initial: Vector
    scale: float
    tilts: Vector | None = None

    def probabilities(self, angles: Vector) -> Vector:
        """Probability of each state after the layers ``γ₁ … γ_p, β₁ … β_p``."""
        return _squared(self._run(angles))

    def objective(self, angles: Vector, tail: float) -> float:
        """Mean energy of the best ``tail`` of the distribution, exactly."""
        return self._tail_mean(self.probabilities(angles), tail)

    def gradient(self, angles: Vector, tail: float) -> tuple[float, Vector]:
        """Return :meth:`objective` and its derivative by the angles, shape (2p,).

        The layers are undone one by one, on the state and on its product with the energies (the
        adjoint method): as much work as three or four evaluations, whatever p is.
        """
        gammas, betas = np.split(np.asarray(angles, dtype=np.float64), 2)
        psi, gates = self._run(angles), self.rotations
        weights = _squared(psi)
        value, relevant = self._tail_mean(weights, tail), self.energies
        if tail < 1:
            # Energies above the quantile don't count, up to a constant (the envelope theorem).
            last = int(np.searchsorted(np.cumsum(weights[self.ranking]), tail))
            quantile = self.energies[self.ranking[min(last, len(weights) - 1)]]
            relevant = np.minimum(self.energies - quantile, 0) / tail
        adjoint = relevant * psi
        slopes = np.zeros((2, len(gammas)))
        for layer in range(len(gammas))[::-1]:
            layers = psi, adjoint, gates.parts, gates.rows, gates.columns, betas[layer]
            if self.tilts is None:
                slopes[1, layer] = undo_exchanges(*layers)
            else:
                slopes[1, layer] = undo_flips(*layers, self.tilts)
            slopes[0, layer] = undo_cost(psi, adjoint, self.energies, gammas[layer])
        return value, slopes.ravel()

    def draw(self, angles: Vector, shots: int, rng: np.random.Generator) -> State:
        """Measure states, shape (shots, n)."""
        positions = rng.choice(self.space.size, shots, p=self.probabilities(angles))
        return self.space.states(positions)

    def _run(self, angles: Vector) -> npt.NDArray[np.complex128]:
        """Return the amplitudes after all layers."""
        gammas, betas = np.split(np.asarray(angles, dtype=np.float64), 2)
        psi, gates = self.initial.astype(np.complex128), self.rotations
        for gamma, beta in zip(gammas, betas, strict=True):
            apply_cost(psi, self.energies, gamma)
            if self.tilts is None:
                apply_exchanges(psi, gates.parts, gates.rows, gates.columns, beta)
            else:
                apply_flips(psi, gates.parts, gates.rows, gates.columns, beta, self.tilts)
        return psi

    def _tail_mean(self, weights: Vector, tail: float) -> float:
        if tail == 1:
            return float(weights @ self.energies)
        return tail_mean(self.energies, weights, tail, self.ranking)

    @cached_property
    def ranking(self) -> npt.NDArray[np.intp]:
        """Positions of the states by energy, the lowest first."""
        return np.argsort(self.energies, kind="stable")


def cardinality_simulator(problem: CardinalityQUBO, mixer: str, start: Start) -> Simulator:
    """Return the simulator of :func:`~solvers.qaoa.circuit.cardinality_circuit`.

    Raises
    ------
    UnsupportedError
        If there are too many feasible states.
    """
    space = feasible_space(problem)
    energies = space.energies(problem)
    scale = spread(energies)
    rotations = exchanges(space, mixer_pairs(problem, mixer))
    return Simulator(space, energies / scale, rotations, _amplitudes(space, start), scale)


def penalty_simulator(form: CardinalityQUBO, scale: float, start: Start) -> Simulator:
    """Return the simulator of :func:`~solvers.qaoa.circuit.penalty_circuit`.

    Raises
    ------
    UnsupportedError
        If n is too large.
    """
    space = full_space(form.n)
    tilts = np.full(form.n, np.pi / 2) if start.odds is None else start.tilts
    energies = space.energies(form) / scale
    return Simulator(space, energies, flips(space), _amplitudes(space, start), scale, tilts)


def energy_scale(problem: CardinalityQUBO) -> float:
    """Return the standard deviation of the feasible states' energies; 1 if they are all equal.

    Estimated from random states if they are too many to be listed.
    """
    if count_feasible(problem) <= MAX_STATES:
        return spread(feasible_space(problem).energies(problem))
    return spread(np.asarray(problem.energy(Sampler(problem, 0).draw(_DRAWS))))


def spread(energies: Vector) -> float:
    """Return the standard deviation, or 1 if all energies are equal."""
    found = float(energies.std())
    return found if found > 1e-12 * float(np.abs(energies).max()) else 1.0


def tail_mean(
    energies: Vector, weights: Vector, tail: float, ranking: npt.NDArray[np.intp] | None = None
) -> float:
    """Mean of the lowest ``tail`` of weighted energies (CVaR, arXiv 1907.04769).

    Parameters
    ----------
    energies, weights : ndarray of float64, shape (count,)
        Weights add up to 1.
    tail : float
        In (0, 1]; 1 gives the plain mean.
    ranking : ndarray of int, shape (count,), optional
        Order of the energies, if it is known.
    """
    order = np.argsort(energies) if ranking is None else ranking
    reached = np.minimum(np.cumsum(weights[order]), tail)
    return float(np.diff(reached, prepend=0.0) @ energies[order] / reached[-1])


def _squared(psi: npt.NDArray[np.complex128]) -> Vector:
    found: Vector = np.square(psi.real) + np.square(psi.imag)
    return found / found.sum()


def _amplitudes(space: Space, start: Start) -> Vector:
    if start.state is not None:
        found = np.zeros(space.size)
        found[space.position(start.state)] = 1
        return found
    if start.odds is None:
        return np.full(space.size, 1 / np.sqrt(space.size))
    weights = space.products(start.odds)
    return np.sqrt(weights / weights.sum())
