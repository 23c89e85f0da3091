"""Blocks as recipes of small integers, and how much that changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from problems import CardinalityQUBO
from problems.library.recipe import magnitude, rebuild, start_of
from scripts.library.blocks import Parts

Array = npt.NDArray[Any]

BITS = {"factor": 8, "deltas": 9, "inputs": 8, "moments": 11, "weights": 14, "product": 14}
"""Bits of the largest magnitude of each integer, beside its sign."""
SLOPE_BITS = 15


def recipe_of(parts: Parts) -> dict[str, Array]:
    """Round a block to integers.

    One power of two, the grid, serves all parts of the curvature, whose largest entry then
    has the bits of :data:`BITS`; slopes are multiples of its square.
    """
    recipe: dict[str, Array] = {"start": np.packbits(parts.block.start)}
    problem = parts.block.problem
    if problem.num_groups > 1:
        recipe["groups"] = _smallest(problem.groups)
    rows, columns = _compact(parts.rows), _compact(parts.columns)
    outer = parts.deltas is not None and outer_is_smaller(parts)
    if outer or parts.moments is not None:
        recipe |= {"rows": _smallest(rows), "columns": _smallest(columns)}
    tops = []
    if parts.factor is not None:
        tops.append((np.abs(parts.factor).max(), BITS["product" if outer else "factor"]))
    moments = None
    if parts.moments is not None:
        used = np.unique(parts.columns)
        moments = triangular(parts.moments[np.ix_(used, used)])
        tops.append((np.abs(moments[:, columns] * parts.weights).max(), BITS["product"]))
    exponent = max(int(np.ceil(np.log2(top / (2**bits - 1)))) for top, bits in tops)
    recipe["exponent"] = np.array(exponent)
    if outer:
        assert parts.deltas is not None
        assert parts.inputs is not None
        deltas, delta = _integers(parts.deltas[:, np.unique(parts.rows)], BITS["deltas"])
        inputs, came = _integers(parts.inputs[:, np.unique(parts.columns)], BITS["inputs"])
        weights, shift = _weights(parts.weights, delta * came * parts.scale, exponent)
        recipe |= {"deltas": deltas, "inputs": inputs, "weights": weights, "shift": shift}
    elif parts.factor is not None:
        recipe["factor"] = _narrow(np.rint(np.ldexp(parts.factor, -exponent)))
    if moments is not None:
        values, unit = _integers(moments, BITS["moments"])
        weights, shift = _weights(parts.weights, unit, exponent)
        recipe |= {"moments": values, "moment_weights": weights, "moment_shift": shift}
    slope = np.ldexp(parts.slope, -2 * exponent)
    raised = max(0, int(np.ceil(np.log2(np.abs(slope).max() / (2**SLOPE_BITS - 1)))))
    recipe |= {"slope": _narrow(np.rint(np.ldexp(slope, -raised))), "slope_shift": np.array(raised)}
    return recipe


def outer_is_smaller(parts: Parts) -> bool:
    """Whether the parts of the factor take fewer bytes than the factor."""
    assert parts.factor is not None
    samples, n = parts.factor.shape
    return samples * (len(np.unique(parts.rows)) + len(np.unique(parts.columns))) < samples * n / 2


def triangular(matrix: Array) -> Array:
    """Return the upper triangular R with ``RᵀR`` = matrix, which may be singular."""
    values, vectors = np.linalg.eigh(matrix)
    keep = values > 1e-9 * values.max()
    R: Array = np.linalg.qr(np.sqrt(values[keep])[:, None] * vectors[:, keep].T, mode="r")
    return R


@dataclass(frozen=True)
class Fidelity:
    """How near the energies of a rounded problem are to those of the pruner's own."""

    spearman: float
    """Rank correlation of the energies of random feasible states."""
    deviation: float
    """Root mean square difference of those energies, over their standard deviation."""

    @classmethod
    def of(cls, original: CardinalityQUBO, rounded: CardinalityQUBO, start: Array) -> Fidelity:
        """Compare 2000 states: half at random, half near the status quo."""
        rng = np.random.default_rng(0)
        states = [
            shuffled(rng, original, start, share) for share in (1.0, 0.1) for _ in range(1000)
        ]
        one, two = original.energy(states), rounded.energy(states)
        spread = float(np.std(one))
        return cls(
            float(spearmanr(one, two).statistic),
            float(np.sqrt(np.mean(np.square(one - two))) / spread),
        )


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


def tested(parts: Parts) -> tuple[dict[str, Array], CardinalityQUBO, Fidelity]:
    """Round a block, rebuild it, and compare the two."""
    recipe = recipe_of(parts)
    problem = rebuild(recipe)
    assert np.array_equal(start_of(recipe), parts.block.start)
    assert problem.energy(parts.block.start) == 0.0
    assert np.ldexp(magnitude(problem), -2 * int(recipe["exponent"])) < 2**53
    return recipe, problem, Fidelity.of(parts.block.problem, problem, parts.block.start)


def _integers(values: Array, bits: int) -> tuple[Array, float]:
    """Return integers of so many bits, and the unit that they count."""
    unit = float(np.abs(values).max()) / (2**bits - 1)
    return _narrow(np.rint(values / unit)), unit


def _weights(weights: Array, unit: float, exponent: int) -> tuple[Array, Array]:
    """Return integer weights, and the shift that brings ``unit · weight`` to the grid."""
    most = float(np.abs(weights).max())
    power = int(np.ceil(np.log2(most * unit / (2 ** BITS["weights"] - 1))))
    return _narrow(np.rint(np.ldexp(weights * unit, -power))), np.array(exponent - power)


def _narrow(values: Array) -> Array:
    """Return integers in the smallest type that holds them."""
    signed = values.min() < 0
    kinds = (np.int8, np.int16, np.int32) if signed else (np.uint8, np.uint16, np.uint32)
    return values.astype(next(kind for kind in kinds if np.abs(values).max() <= np.iinfo(kind).max))


def _smallest(values: Array) -> Array:
    return values.astype(np.min_scalar_type(int(values.max())))


def _compact(values: Array) -> Array:
    return np.unique(values, return_inverse=True)[1]
