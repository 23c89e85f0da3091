"""Particle filter over masks: a search that only needs the loss of a mask.

Anwar, Hwang and Sung 2015 (arXiv 1512.08571, section 4): many masks are weighted by ``exp(-loss)``
on held-out samples, resampled in proportion to their weights, and perturbed by exchanges of a few
groups. It costs ``particles · rounds`` evaluations, and serves as a reference for small problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

State = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ParticleResult:
    """The best mask of a particle filter."""

    state: State
    """1 = pruned, shape (n,)."""
    loss: float
    evaluations: int
    """Number of different masks whose loss was evaluated."""
    losses: list[float] = field(default_factory=list)
    """Lowest loss after each round."""


def particle_filter(
    loss: Callable[[State], float],
    size: int,
    pruned: int,
    *,
    particles: int = 50,
    rounds: int = 20,
    temperature: float = 1.0,
    exchanges: int = 1,
    start: State | None = None,
    seed: int = 0,
) -> ParticleResult:
    """Search for the mask with ``pruned`` of ``size`` groups pruned and the lowest loss.

    Parameters
    ----------
    loss : callable
        ``loss(state)`` of a state (1 = pruned); evaluated once per different state.
    size, pruned : int
    particles : int, default 50
        M, number of masks.
    rounds : int, default 20
        Number of rounds of weighting, resampling and perturbation.
    temperature : float, default 1
        Weights are ``exp(-loss / temperature)``. The paper uses the misclassification rate, at 1.
    exchanges : int, default 1
        Largest number of exchanges of a pruned and a kept group in a perturbation.
    start : array of uint8, optional
        One of the first masks; the others are random.
    seed : int, default 0

    Returns
    -------
    ParticleResult
        The best of all masks that were evaluated.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if not 0 <= pruned <= size:
        raise ValueError(f"pruned is {pruned}; it must be between 0 and size = {size}")
    if particles < 1 or rounds < 1 or exchanges < 1 or not temperature > 0:
        raise ValueError("particles, rounds, exchanges and temperature must be above 0")
    rng = np.random.default_rng(seed)
    known: dict[bytes, float] = {}
    best: tuple[float, State] | None = None

    def evaluate(state: State) -> float:
        nonlocal best
        key = state.tobytes()
        if key not in known:
            known[key] = float(loss(state))
        if best is None or known[key] < best[0]:
            best = known[key], state.copy()
        return known[key]

    masks = [_random(rng, size, pruned) for _ in range(particles)]
    if start is not None:
        if start.shape != (size,) or int(start.sum()) != pruned:
            raise ValueError(f"start must be a state of {size} groups with {pruned} pruned")
        masks[0] = start.astype(np.uint8)
    lowest = []
    for _ in range(rounds):
        losses = np.array([evaluate(mask) for mask in masks])
        assert best is not None
        lowest.append(best[0])
        finite = np.where(np.isfinite(losses), losses, np.inf)
        weights = np.exp(-(finite - finite.min()) / temperature)
        chosen = rng.choice(particles, particles, p=weights / weights.sum())
        masks = [_perturbed(rng, masks[i], exchanges) for i in chosen]
        masks[0] = best[1].copy()  # the best mask survives
    assert best is not None
    return ParticleResult(best[1], best[0], len(known), lowest)


def _random(rng: np.random.Generator, size: int, pruned: int) -> State:
    state = np.zeros(size, dtype=np.uint8)
    state[rng.permutation(size)[:pruned]] = 1
    return state


def _perturbed(rng: np.random.Generator, state: State, exchanges: int) -> State:
    """Exchange up to ``exchanges`` pruned groups with kept ones."""
    found = state.copy()
    ones, zeros = np.flatnonzero(state == 1), np.flatnonzero(state == 0)
    count = min(int(rng.integers(1, exchanges + 1)), len(ones), len(zeros))
    found[rng.permutation(ones)[:count]] = 0
    found[rng.permutation(zeros)[:count]] = 1
    return found
