"""Least squares with a given support: conjugate gradients for all outputs at once."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_on_support(
    hessian: Tensor,
    sides: Tensor,
    kept: Tensor,
    start: Tensor,
    *,
    iterations: int = 50,
    tolerance: float = 1e-4,
) -> Tensor:
    """Minimise ``½ w H wᵀ - w·b`` over each output's kept weights by conjugate gradients.

    Each output is a problem of its own, with its own step length and β; the products with H are
    those of all outputs together. Residuals are masked in each iteration, so that weights outside
    of the support stay 0 (cf. the projected method of ALPS, arXiv 2406.07831, section 3.3), and
    divided by the diagonal of H as the preconditioner.

    Parameters
    ----------
    hessian : Tensor, shape (groups, in, in)
        Symmetric and positive semidefinite.
    sides : Tensor, shape (groups, out, in)
        b.
    kept : Tensor of bool, shape (groups, out, in)
        The support.
    start : Tensor, shape (groups, out, in)
        Initial weights; entries outside of the support are ignored.
    iterations : int, default 50
    tolerance : float, default 1e-4
        An output is finished when its preconditioned residual has this norm relative to that of
        its right-hand side.

    Returns
    -------
    Tensor, shape (groups, out, in)
        Zero outside of the support. An output whose objective did not fall keeps its start.
    """
    diagonal = hessian.diagonal(dim1=1, dim2=2).unsqueeze(1)
    # Inputs that are always 0 have no equation: their weights stay.
    inverse = torch.where(diagonal > 0, 1 / diagonal, torch.zeros_like(diagonal))
    outside = ~kept
    start = start.masked_fill(outside, 0)
    weight = start.clone()
    residual = (sides - weight @ hessian).masked_fill_(outside, 0)
    before = _objective(sides, start, residual)
    scaled = residual * inverse
    direction = scaled.clone()
    size = _dot(residual, scaled)
    wanted = sides.masked_fill(outside, 0)
    limit = tolerance**2 * _dot(wanted, wanted * inverse)
    del wanted
    for _ in range(iterations):
        product = (direction @ hessian).masked_fill_(outside, 0)
        curvature = _dot(direction, product)
        active = (size > limit) & (curvature > 0)
        if not active.any():
            break
        step = torch.where(active, size / curvature, 0)
        weight.addcmul_(direction, step)
        residual.addcmul_(product, step, value=-1)
        torch.mul(residual, inverse, out=scaled)
        after = _dot(residual, scaled)
        direction.mul_(torch.where(active, after / size, 0)).add_(scaled)
        size = torch.where(active, after, 0)
    # The updated residual can't be trusted if H is singular.
    residual = (sides - weight @ hessian).masked_fill_(outside, 0)
    better = _objective(sides, weight, residual) <= before
    return torch.where(better, weight, start)


def solve_exactly(hessian: Tensor, sides: Tensor, kept: Tensor, start: Tensor) -> Tensor:
    """Return the minimum that :func:`solve_on_support` approximates, by a Cholesky factor a row.

    For a few small layers, and as a reference: the time is O(out · in³).

    Parameters
    ----------
    hessian, sides, kept, start
        As for :func:`solve_on_support`; H must be positive definite on each support.

    Raises
    ------
    torch.linalg.LinAlgError
        If it is not.
    """
    found = torch.zeros_like(start)
    for group, rows in enumerate(kept):
        for row, support in enumerate(rows):
            index = support.nonzero().flatten()
            if not len(index):
                continue
            factor = torch.linalg.cholesky(hessian[group][index][:, index])
            side = sides[group, row, index]
            found[group, row, index] = torch.cholesky_solve(side[:, None], factor).flatten()
    return found


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the scalar products of the rows, shape (groups, out, 1)."""
    return torch.linalg.vecdot(one, other).unsqueeze(2)


def _objective(sides: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    """Return ``½ w H wᵀ - w·b`` for the residual ``b - w H`` on the support."""
    return -0.5 * _dot(weight, sides + residual)
