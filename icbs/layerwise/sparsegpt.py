"""SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774) for the matrix of one layer."""

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
    """Prune column by column and compensate each error in the columns to the right.

    With ``H = 2 XᵀX/N``, damped, and ``U`` the upper Cholesky factor of ``H⁻¹``, the score of a
    weight ``w_j`` of an output is ``w_j² / U_jj²``; pruning it causes the error
    ``e = w_j / U_jj``, and ``w_{j:} -= e U_{j,j:}`` is the optimal compensation by the columns
    to the right (algorithm 1 of the paper).

    Parameters
    ----------
    weight : Tensor, shape (out, in)
        Dense weights; not modified.
    gram : Tensor, shape (in, in)
        ``XᵀX/N``, the second moments of the inputs.
    keep : int
        Number of weights to keep, distributed evenly over the blocks of columns; ignored
        with a pattern.
    pattern : Pattern, optional
        N:M: the best weights of each group are kept, chosen when the sweep reaches the group.
    damping : float, default 0.01
        Added to H's diagonal, as a share of its mean.
    width : int, default 128
        Columns in a block, within which the weights of all outputs are ranked before the
        sweep over the block.

    Returns
    -------
    weight : Tensor, shape (out, in)
        Pruned and updated weights, in the dtype of ``weight``.
    mask : Tensor of bool, shape (out, in)
        True where kept. Weights of inputs that are always 0 are 0, whether kept or not.

    Raises
    ------
    torch.linalg.LinAlgError
        If the damped H is not positive definite: not finite, or too large for the precision.
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
            scores = (block / diagonal).square().flatten()
            kept.zero_()
            best = scores.argsort(descending=True, stable=True)[:share]
            kept[best // block.shape[1], best % block.shape[1]] = True
        for j in range(stop - start):
            if pattern is not None and j % pattern.run == 0:
                run = slice(j, j + pattern.run)
                kept[:, run] = pattern.mask((block[:, run] / diagonal[run]).square())
            error = torch.where(kept[:, j], 0, block[:, j]) / diagonal[j]
            block[:, j:].addr_(error, factor[j, j:], alpha=-1)
            block[:, j].masked_fill_(~kept[:, j], 0)  # exactly 0 despite rounding
            errors[:, j] = error
        work[:, stop:].addmm_(errors, upper[start:stop, stop:], alpha=-1)
    return work.to(weight.dtype), mask


def _inverse_factor(hessian: Tensor, dead: Tensor, damping: float) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the damped Hessian, in float64."""
    wide = hessian.double()
    diagonal = wide.diagonal()
    diagonal.masked_fill_(dead, 1)
    diagonal += damping * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(wide))
    return torch.linalg.cholesky(inverse, upper=True)
