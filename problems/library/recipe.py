"""Problems stored as small integers, and rebuilt from them bit-identically.

A recipe contains the status quo x⁰, the slope s of the loss and a factor of its curvature, all
integers. The problem is the pruner's quadratic model (iCBS, arXiv 2411.17796, section 3) in
units of ``4^exponent``, or finer ones where the slope has some:

    E(x) = -s·u + ‖F u‖² + Σ_r ‖G u_r‖²,  u = x - x⁰,

where F is a factor of the Fisher, G one of the second moments of the layer's inputs, and u_r the
part of u that belongs to output r. Every sum stays far below 2⁵³, so that each is exact in
float64 in any order of summation: all machines get the same bits, and all energies are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.archive import read_arrays
from problems.errors import FormatError
from problems.qubo import CardinalityQUBO

Array = npt.NDArray[Any]
Recipe = Mapping[str, Array]

#: Dtype kinds and number of dimensions of each entry; all but the first four are optional.
ENTRIES = {
    "start": ("u", 1),  # x⁰, eight variables to a byte
    "exponent": ("i", 0),
    "slope": ("iu", 1),
    "slope_shift": ("i", 0),  # the slope is multiplied by 2 to this power; may be negative
    "groups": ("u", 1),
    "factor": ("iu", 2),  # F itself, or its parts:
    "deltas": ("iu", 2),  # gradients of the outputs, (samples, outputs)
    "inputs": ("iu", 2),  # inputs, (samples, inputs)
    "weights": ("iu", 1),
    "shift": ("i", 0),  # products are divided by 2 to this power and rounded
    "rows": ("u", 1),  # output of each variable
    "columns": ("u", 1),  # input of each variable
    "moments": ("iu", 2),  # factor of the inputs' second moments, (any, inputs)
    "moment_weights": ("iu", 1),
    "moment_shift": ("i", 0),
}


def read_recipe(path: str | Path) -> dict[str, Array]:
    """Read a recipe.

    Raises
    ------
    FormatError
        If the file is damaged or lacks an entry.
    FileNotFoundError
        If there is no such file.
    """
    found = read_arrays(path, ENTRIES)
    absent = [name for name in list(ENTRIES)[:4] if name not in found]
    if not {"factor", "deltas", "moments"} & set(found):
        absent.append("factor")
    if absent:
        raise FormatError(f"{path} is not a recipe: it lacks {', '.join(absent)}")
    return found


def start_of(recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Return the status quo, shape (n,), 1 = pruned."""
    return np.unpackbits(recipe["start"], count=len(recipe["slope"]))


def rebuild(recipe: Recipe) -> CardinalityQUBO:
    """Rebuild the problem of a recipe.

    Returns
    -------
    CardinalityQUBO
        Factored with float32 ``A`` where the curvature is a Fisher, else dense in float64.
        Energies are integer multiples of ``2**unit_exponent``, and that of the status quo is 0.
    """
    start = start_of(recipe)
    x0 = start.astype(np.float64)
    exponent = int(recipe["exponent"])
    slope = np.ldexp(recipe["slope"].astype(np.float64), int(recipe["slope_shift"]))
    factor, layer_error = fisher_factor(recipe), layer_error_matrix(recipe)
    half = np.zeros(len(x0))  # ½Cx⁰
    if factor is not None:
        half += factor.T @ (factor @ x0)
    if layer_error is not None:
        half += layer_error @ x0
    linear = -slope - 2 * half
    offset = float(np.ldexp(slope @ x0 + half @ x0, 2 * exponent))
    groups = recipe.get("groups")
    labels = np.zeros(len(x0), np.int64) if groups is None else groups.astype(np.int64)
    counts = np.bincount(labels, weights=x0).astype(np.int64)
    k = int(counts[0]) if groups is None else counts
    held = None if groups is None else labels
    if layer_error is None:
        assert factor is not None
        A = np.ldexp(factor, exponent).astype(np.float32)
        terms = np.ldexp(linear, 2 * exponent)
        return CardinalityQUBO.from_factors(A, terms, k, groups=held, offset=offset)
    Q = layer_error if factor is None else layer_error + factor.T @ factor
    Q[np.diag_indices(len(x0))] += linear
    return CardinalityQUBO(np.ldexp(Q, 2 * exponent), k, groups=held, offset=offset)


def unit_exponent(recipe: Recipe) -> int:
    """Return log2 of the unit of energies: of the grid's square, or of slopes where finer."""
    return 2 * int(recipe["exponent"]) + min(0, int(recipe["slope_shift"]))


def fisher_factor(recipe: Recipe) -> Array | None:
    """Return F, integers in float64, shape (samples, n); None without a Fisher.

    The gradient of a sample is the outer product of output gradient and input:
    ``F[s, i] = deltas[s, row i] · inputs[s, column i] · weight i``.
    """
    if "factor" in recipe:
        return recipe["factor"].astype(np.float64)
    if "deltas" not in recipe:
        return None
    products = recipe["deltas"].astype(np.int64)[:, recipe["rows"]]
    products *= recipe["inputs"][:, recipe["columns"]]
    products *= recipe["weights"]
    return _divided(products, int(recipe["shift"])).astype(np.float64)


def layer_error_matrix(recipe: Recipe) -> Array | None:
    """Return the sum of GᵀG over the outputs, shape (n, n); None without it."""
    if "moments" not in recipe:
        return None
    products = recipe["moments"].astype(np.int64)[:, recipe["columns"]]
    products *= recipe["moment_weights"]
    factor = _divided(products, int(recipe["moment_shift"])).astype(np.float64)
    matrix: Array = factor.T @ factor
    matrix[recipe["rows"][:, None] != recipe["rows"]] = 0.0
    return matrix


def _divided(values: Array, shift: int) -> Array:
    """Divide integers by 2 to a power, rounding halves up."""
    return values if shift == 0 else (values + (1 << (shift - 1))) // (1 << shift)
