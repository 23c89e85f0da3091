"""Blocks as recipes of small integers, and how much that changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from problems.library.recipe import rebuild, start_of, unit_exponent
from problems.scaling import coefficient_sum
from scripts.library.fidelity import LARGEST_DEVIATION, Fidelity, Reference
from scripts.library.parts import Parts

Array = npt.NDArray[Any]

#: Bits of the largest entry that are tried in turn, beside its sign.
LEVELS = (8, 10, 12, 14, 16)

#: Largest sum in an energy, of which float64 holds all integers.
LIMIT = 2**53


@dataclass(frozen=True)
class Bits:
    """Bits of the largest magnitude of each integer, beside its sign."""

    factor: int
    """Of the factor itself; the other parts follow."""

    @property
    def parts(self) -> int:
        """Bits of what the factor is a product of: gradients and inputs."""
        return self.factor + 1

    @property
    def moments(self) -> int:
        """Bits of the factor of the inputs' second moments."""
        return self.factor + 3

    @property
    def products(self) -> int:
        """Bits of products, which nothing is stored of, and of weights."""
        return self.factor + 6

    @property
    def slope(self) -> int:
        """Bits of slopes."""
        return self.factor + 7


def recipe_of(parts: Parts, bits: Bits) -> dict[str, Array]:
    """Round a block to integers.

    One power of two, the grid, serves all parts of the curvature, whose largest entry then has
    the given bits. Slopes are multiples of another power, which may be below the grid's square.
    Both are made coarser where sums would reach :data:`LIMIT` of the finest unit.
    """
    finest = curvature_recipe(parts, bits)
    for coarser in range(16):
        recipe = finest if coarser == 0 else curvature_recipe(parts, bits, coarser)
        slope = np.ldexp(parts.slope, -2 * int(recipe["exponent"]))
        shift = int(np.ceil(np.log2(np.abs(slope).max() / (2**bits.slope - 1))))
        for power in range(shift, max(shift, 0) + 1):
            found = recipe | {
                "slope": _narrow(np.rint(np.ldexp(slope, -power))),
                "slope_shift": np.array(power),
            }
            if np.ldexp(coefficient_sum(rebuild(found)), -unit_exponent(found)) < LIMIT:
                return found
    raise ValueError(f"no grid keeps sums below {LIMIT}")


def curvature_recipe(parts: Parts, bits: Bits, coarser: int = 0) -> dict[str, Array]:
    """Round all but the slope, on a grid that is coarser by a power of two."""
    recipe: dict[str, Array] = {"start": np.packbits(parts.start)}
    problem = parts.problem
    if problem.num_groups > 1:
        recipe["groups"] = _smallest(problem.groups)
    rows, columns = _compact(parts.rows), _compact(parts.columns)
    outer = parts.deltas is not None and outer_is_smaller(parts)
    if outer or parts.moments is not None:
        recipe |= {"rows": _smallest(rows), "columns": _smallest(columns)}
    tops = []
    if parts.factor is not None:
        tops.append((np.abs(parts.factor).max(), bits.products if outer else bits.factor))
    moments = None
    if parts.moments is not None:
        used = np.unique(parts.columns)
        moments = triangular(parts.moments[np.ix_(used, used)])
        tops.append((np.abs(moments[:, columns] * parts.weights).max(), bits.products))
    exponent = max(int(np.ceil(np.log2(top / (2**most - 1)))) for top, most in tops) + coarser
    recipe["exponent"] = np.array(exponent)
    if outer:
        assert parts.deltas is not None
        assert parts.inputs is not None
        deltas, delta = _integers(parts.deltas[:, np.unique(parts.rows)], bits.parts)
        inputs, came = _integers(parts.inputs[:, np.unique(parts.columns)], bits.parts)
        weights, shift = _weights(parts.weights, delta * came * parts.scale, exponent, bits)
        recipe |= {"deltas": deltas, "inputs": inputs, "weights": weights, "shift": shift}
    elif parts.factor is not None:
        recipe["factor"] = _narrow(np.rint(np.ldexp(parts.factor, -exponent)))
    if moments is not None:
        values, unit = _integers(moments, bits.moments)
        weights, shift = _weights(parts.weights, unit, exponent, bits)
        recipe |= {"moments": values, "moment_weights": weights, "moment_shift": shift}
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


def rounded(
    parts: Parts, known: Sequence[Array] = (), least: int = LEVELS[0]
) -> tuple[dict[str, Array], CardinalityQUBO, Fidelity]:
    """Round a block with the fewest bits of :data:`LEVELS` that keep its best energies.

    Known good states are compared too; fewer bits than ``least`` are not tried.
    """
    reference = Reference.of(parts, known)
    for level in LEVELS[LEVELS.index(least) :]:
        recipe = recipe_of(parts, Bits(level))
        problem = rebuild(recipe)
        assert np.array_equal(start_of(recipe), parts.start)
        assert problem.energy(parts.start) == 0.0
        fidelity = reference.compare(problem, level)
        if fidelity.at_best < LARGEST_DEVIATION:
            break
    return recipe, problem, fidelity


def _integers(values: Array, bits: int) -> tuple[Array, float]:
    """Return integers of so many bits, and the unit that they count."""
    unit = float(np.abs(values).max()) / (2**bits - 1)
    return _narrow(np.rint(values / unit)), unit


def _weights(weights: Array, unit: float, exponent: int, bits: Bits) -> tuple[Array, Array]:
    """Return integer weights, and the shift that brings ``unit · weight`` to the grid."""
    most = float(np.abs(weights).max())
    power = int(np.ceil(np.log2(most * unit / (2**bits.products - 1))))
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
