"""SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774) on one layer's matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from icbs.config.constraints import Pattern


def sparsegpt(
    weight: Tensor,
    gram: Tensor,
    keep: int,
    pattern: Pattern | None = None,
    *,
    damping: float = 0.01,
    width: int = 128,
) -> tuple[Tensor, Tensor]:
    """Prune column by column, and let the columns to the right make up for each error.

    With ``H = 2 XᵀX/N``, damped, and ``U`` the upper Cholesky factor of ``H⁻¹``, the weight
    ``w_j`` of an output is worth ``w_j² / U_jj²``; pruning it leaves the error
    ``e = w_j / U_jj``, and ``w_{j:} -= e U_{j,j:}`` is the best that the columns not yet
    seen can do about it (algorithm 1 of the paper).

    Parameters
    ----------
    weight : Tensor, shape (out, in)
        Dense weights; left as they are.
    gram : Tensor, shape (in, in)
        ``XᵀX/N``, the second moments of the inputs.
    keep : int
        Weights kept in all, shared out evenly over the blocks of columns; of no effect
        under a pattern.
    pattern : Pattern, optional
        N:M: the best of each run, judged when the sweep reaches the run.
    damping : float, default 0.01
        Added to H's diagonal, as a share of its mean.
    width : int, default 128
        Columns among which weights are compared, all outputs together, before the sweep
        goes over them.

    Returns
    -------
    weight : Tensor, shape (out, in)
        Pruned and updated, in the dtype given.
    mask : Tensor of bool, shape (out, in)
        True where kept. Inputs that are always 0 have weight 0 whether kept or not.

    Raises
    ------
    torch.linalg.LinAlgError
        If H, damped, is not positive definite: values that are not finite, or too large
        for the precision.
    """
    work = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
    dead = gram.diagonal() == 0
    work[:, dead] = 0
    upper = _inverse_factor(2 * gram, dead, damping).to(work.dtype)
    rows, columns = weight.shape
    mask = torch.ones(rows, columns, dtype=torch.bool, device=weight.device)
    if pattern is not None:
        width = max(pattern.run, width - width % pattern.run)
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        block, factor = work[:, start:stop], upper[start:stop, start:stop]
        kept, errors = mask[:, start:stop], torch.zeros_like(block)
        diagonal = factor.diagonal()
        if pattern is None:
            # Rounded cumulatively, so that the counts of the blocks add up to ``keep``.
            share = round(keep * stop / columns) - round(keep * start / columns)
            worth = (block / diagonal).square().flatten()
            kept.zero_()
            best = worth.argsort(descending=True, stable=True)[:share]
            kept[best // block.shape[1], best % block.shape[1]] = True
        for j in range(stop - start):
            if pattern is not None and j % pattern.run == 0:
                run = slice(j, j + pattern.run)
                kept[:, run] = pattern.mask((block[:, run] / diagonal[run]).square())
            error = torch.where(kept[:, j], 0, block[:, j]) / diagonal[j]
            block[:, j:].addr_(error, factor[j, j:], alpha=-1)
            block[:, j].masked_fill_(~kept[:, j], 0)  # what rounding leaves
            errors[:, j] = error
        work[:, stop:].addmm_(errors, upper[start:stop, stop:], alpha=-1)
    return work.to(weight.dtype), mask


def _inverse_factor(hessian: Tensor, dead: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped Hessian, in float64."""
    wide = hessian.double()
    diagonal = wide.diagonal()
    diagonal.masked_fill_(dead, 1)
    diagonal += damping * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(wide))
    return torch.linalg.cholesky(inverse, upper=True)
