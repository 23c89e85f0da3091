"""Validation of a problem's coefficients, cardinalities and groups."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.errors import InvalidProblemError

Array = npt.NDArray[Any]

#: Largest |Q - Qᵀ| / max|Q| that counts as rounding and is averaged away, by dtype.
_ASYMMETRY = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}


def is_tensor(values: Any) -> bool:
    """Whether values are a torch tensor; does not import torch, which takes a second."""
    torch = sys.modules.get("torch")  # not imported, so no tensor exists
    return torch is not None and isinstance(values, torch.Tensor)


def stays_on_device(values: Any) -> bool:
    """Whether coefficients stay on their device instead of being converted to NumPy."""
    return is_tensor(values) and bool(values.is_cuda)


def as_array(values: Any, name: str) -> Array:
    """Convert a tensor on any device, a nested list or an array to NumPy."""
    if is_tensor(values):
        values = values.detach().to_dense().cpu()
        # NumPy has no bfloat16.
        return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InvalidProblemError(f"{name} can't be read as an array: {error}") from error


def checked_coefficients(values: Any, name: str, ndim: int) -> Array:
    """Return finite float32/float64 coefficients of the wanted dimension."""
    array = as_array(values, name)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype not in (np.float32, np.float64):
        raise InvalidProblemError(
            f"{name} has dtype {array.dtype}; use float32, float64 or an integer type"
        )
    if array.ndim != ndim:
        raise InvalidProblemError(f"{name} has {array.ndim} dimensions, expected {ndim}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidProblemError(f"{name}{list(where)} is {array[where]}; it must be finite")
    return array


def symmetrised(Q: Array) -> Array:
    """Average out asymmetry from rounding; refuse a matrix with more."""
    if np.array_equal(Q, Q.T):
        return Q
    scale = float(np.abs(Q).max())
    worst = float(np.abs(Q - Q.T).max())
    if worst > _ASYMMETRY[Q.dtype] * scale:
        raise InvalidProblemError(
            f"Q is not symmetric (max |Q - Qᵀ| = {worst:.3g}, max |Q| = {scale:.3g}); "
            "pass (Q + Q.T) / 2 for the same energies, and mind that an upper-triangular "
            "matrix holds each coupling once"
        )
    half = Q / Q.dtype.type(2)  # halved first: the sum of two large entries may overflow
    return half + half.T


def checked_cardinalities(n: int, k: Any, groups: Any) -> tuple[Array, Array]:
    """Return the checked group of each variable (int32) and k of each group (int64)."""
    given = as_array(k, "k")
    wanted = np.atleast_1d(given)
    if wanted.dtype.kind not in "iu" or wanted.ndim != 1 or len(wanted) == 0:
        raise InvalidProblemError(f"k is {k!r}; it must be an integer, or one for each group")
    if groups is None:
        if given.ndim != 0:
            raise InvalidProblemError(f"k is a sequence of {len(wanted)}; pass groups with it")
        labels = np.zeros(n, dtype=np.int32)
    else:
        labels = as_array(groups, "groups")
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise InvalidProblemError(
                f"groups has shape {labels.shape} and dtype {labels.dtype}; "
                f"it must be an integer per variable, shape ({n},)"
            )
        if n and (labels.min() < 0 or labels.max() >= len(wanted)):
            raise InvalidProblemError(
                f"groups holds labels {labels.min()} … {labels.max()}, but k names "
                f"{len(wanted)} groups: labels must be 0 … {len(wanted) - 1}"
            )
        labels = labels.astype(np.int32)
    sizes = np.bincount(labels, minlength=len(wanted))
    bad = np.flatnonzero((wanted < 0) | (wanted > sizes))
    if len(bad):
        g = bad[0]
        where = "" if groups is None else f" of group {g}"
        raise InvalidProblemError(f"k{where} is {wanted[g]}; it must lie in [0, {sizes[g]}]")
    return labels, wanted.astype(np.int64)
