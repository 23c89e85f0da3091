"""Coefficients of an embedded problem against the ranges and the precision of an annealer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.adapters.embedding import Chains
from solvers.adapters.ocean import dense_bqm, sample_states
from solvers.readiness.target import AnnealerTarget

Vector = npt.NDArray[np.float64]

#: Couplings of the cost below this share of the largest one are left out of the dynamic range.
SMALLEST_SHARE = 0.01
#: Sweeps of simulated annealing on the embedded problem.
_SWEEPS = 500


@dataclass(frozen=True)
class Programmed:
    """An embedded Ising problem as an annealer is programmed with it."""

    bqm: Any
    """The problem before embedding, a SPIN model of dimod, in units of the energy."""
    embedded: Any
    """The problem on the qubits, in units of the energy."""
    chain_strength: float
    """Uniform torque compensation of dwave-system, in units of the energy."""
    scale: float | None
    """Factor from units of the energy to those of the processor, that fills its ranges; None
    if all coefficients are 0."""


def program(
    form: CardinalityQUBO, chains: Chains, graph: Any, target: AnnealerTarget
) -> Programmed:
    """Embed a penalised cost, and scale it to the ranges of the target.

    Linear terms are spread over the qubits of a chain and couplings over the couplers between two
    chains (:func:`dwave.embedding.embed_bqm`). Limits on the sum of the couplings of one qubit
    are not considered.

    Parameters
    ----------
    form : CardinalityQUBO
        Cost with its penalty; its cardinality is not enforced.
    chains : dict of int to tuple of int
    graph : networkx.Graph
    target : AnnealerTarget
    """
    from dwave.embedding import embed_bqm
    from dwave.embedding.chain_strength import uniform_torque_compensation

    bqm = dense_bqm(form, spin=True)
    strength = float(uniform_torque_compensation(bqm, chains))
    embedded = embed_bqm(bqm, chains, graph, chain_strength=strength)
    room = min(
        _room(np.fromiter(embedded.linear.values(), float), target.h_range),
        _room(np.fromiter(embedded.quadratic.values(), float), target.j_range),
    )
    return Programmed(bqm, embedded, strength, room if math.isfinite(room) else None)


def resolution(target: AnnealerTarget) -> float:
    """Return the step of couplings that the target resolves, in its own units.

    The part of the range of couplings that is symmetric about 0, divided by ``2**bits``; what is
    beyond is for chains.
    """
    return float(2 * min(-target.j_range[0], target.j_range[1]) / 2**target.bits)


def dynamic_range(problem: CardinalityQUBO, form: CardinalityQUBO) -> float | None:
    """Return the largest coupling with the penalty over the smallest one of the cost.

    Couplings of the cost below 1 % of its largest are left out.

    Returns
    -------
    float or None
        None if the cost has no couplings.
    """
    cost = np.abs(_couplings(problem))
    largest = cost.max(initial=0)
    if largest == 0:
        return None
    kept = cost[cost >= SMALLEST_SHARE * largest]
    return float(np.abs(_couplings(form)).max() / kept.min())


def resolved_share(
    problem: CardinalityQUBO, scale: float | None, target: AnnealerTarget
) -> float | None:
    """Return the share of the couplings of the cost of at least half a step of the target.

    Smaller ones are rounded to 0. None if there are no couplings, or no scale.
    """
    cost = np.abs(_couplings(problem))
    cost = cost[cost > 0]
    if scale is None or not len(cost):
        return None
    return float(np.mean(cost * scale >= resolution(target) / 2))


def mock_samples(
    programmed: Programmed, chains: Chains, target: AnnealerTarget, reads: int, seed: int
) -> tuple[float, npt.NDArray[np.uint8]]:
    """Sample the programmed problem by simulated annealing in place of a processor.

    Coefficients are scaled and rounded as the target resolves them. There is no noise and no
    quantum dynamics: samples tell whether the chains hold at low energies of the programmed
    problem, not what a processor would return.

    Parameters
    ----------
    programmed : Programmed
        With a scale.
    chains : dict of int to tuple of int
    target : AnnealerTarget
    reads : int
        Number of samples.
    seed : int

    Returns
    -------
    broken : float
        Mean share of broken chains.
    states : ndarray of uint8, shape (reads, n)
        Samples of the variables, by majority of each chain.
    """
    from dwave.embedding import unembed_sampleset
    from dwave.samplers import SimulatedAnnealingSampler

    assert programmed.scale is not None
    rounded = programmed.embedded.copy()
    rounded.scale(programmed.scale)
    step = resolution(target)
    per_h = 2 * min(-target.h_range[0], target.h_range[1]) / 2**target.bits
    for v, bias in rounded.linear.items():
        rounded.set_linear(v, per_h * round(bias / per_h))
    for (u, v), bias in rounded.quadratic.items():
        rounded.set_quadratic(u, v, step * round(bias / step))
    answer = SimulatedAnnealingSampler().sample(
        rounded, num_reads=reads, num_sweeps=_SWEEPS, seed=seed
    )
    samples = unembed_sampleset(answer, chains, programmed.bqm, chain_break_fraction=True)
    weights = samples.record.num_occurrences
    broken = float(np.average(samples.record.chain_break_fraction, weights=weights))
    return broken, sample_states(samples, len(chains))


def _couplings(problem: CardinalityQUBO) -> Vector:
    """Ising couplings ``J_ij = Q_ij / 2`` of all pairs, shape (n(n - 1)/2,)."""
    upper: Vector = problem.Q[np.triu_indices(problem.n, 1)].astype(np.float64)
    return upper / 2


def _room(values: Vector, limits: tuple[float, float]) -> float:
    """Return the largest factor that keeps all values within the limits."""
    low, high = values.min(initial=0), values.max(initial=0)
    return float(
        min(
            limits[0] / low if low < 0 else math.inf,
            limits[1] / high if high > 0 else math.inf,
        )
    )
