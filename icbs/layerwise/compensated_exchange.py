"""Exchanges of a kept and a pruned weight, with the other weights at their best values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icbs.config.constraints import Pattern
from icbs.layerwise.sparsegpt import sparsegpt

Float = npt.NDArray[np.float64]
_LEAST = 1e-9
"""Smallest decrease of an exchange, as a share of the output's error."""


def exchange_compensated(
    weight: Tensor,
    gram: Tensor,
    mask: Tensor,
    pattern: Pattern | None = None,
    *,
    damping: float = 0.01,
    exchanges: int = 64,
    candidates: int | None = 8,
) -> tuple[Tensor, Tensor]:
    """Lower each output's error by exchanges, with the kept weights at their optimum throughout.

    The error of an output is ``½ (w - w⁰) H (w - w⁰)ᵀ``, minimised over the weights of its
    support. With ``B = (H_KK)⁻¹`` and ``e = (w⁰ - w) H``, pruning q raises the error by
    ``½ w_q² / B_qq``, and keeping p lowers it by ``½ e_p² / s_p``, where
    ``s_p = H_pp - H_pK B H_Kp``; the kept weights follow by rank-one updates of B. In each step the
    best exchange is done, among the weights that are cheapest to prune and all pruned ones. Cf.
    :func:`icbs.layerwise.exchange_weights`, which leaves the kept weights at their dense values.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
        Dense weights.
    gram : Tensor, shape (in, in)
        ``XᵀX/N``, the second moments of the inputs.
    mask : Tensor of bool, shape (out, in)
        Initial mask, True where kept; the number of weights kept in each output stays.
    pattern : Pattern, optional
        N:M pattern of the mask; weights are exchanged within its groups.
    damping : float, default 0.01
        Added to H's diagonal, as a share of its mean.
    exchanges : int, default 64
        Maximum number of exchanges of an output. An exchange takes O(in²) operations.
    candidates : int or None, default 8
        Number of kept weights that may be pruned in a step, those that cost least; None for all.

    Returns
    -------
    weight : Tensor, shape (out, in)
        Weights of least error on the new support, in the dtype of ``weight``.
    mask : Tensor of bool, shape (out, in)
        True where kept.

    Raises
    ------
    torch.linalg.LinAlgError
        If H is not positive definite on a support.
    """
    dense = weight.detach().double().cpu().numpy()
    hessian = gram.detach().double().cpu().numpy()
    diagonal = hessian.diagonal()
    mean = float(diagonal.mean())
    hessian = hessian + (damping * mean + (mean == 0)) * np.eye(len(hessian))
    kept = mask.detach().cpu().numpy()
    run = len(hessian) if pattern is None else pattern.run

    def row(number: int) -> tuple[Float, npt.NDArray[np.bool_]]:
        search = _Row(dense[number], hessian, kept[number], run)
        for _ in range(exchanges):
            if not search.exchange(candidates):
                break
        return search.result()

    try:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            found = list(pool.map(row, range(len(dense))))
    except np.linalg.LinAlgError as error:
        raise torch.linalg.LinAlgError(str(error)) from error
    weights, masks = (torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True))
    return weights.to(weight), masks.to(mask.device)


def sparsegpt_exchanged(
    weight: Tensor, gram: Tensor, keep: int, pattern: Pattern | None = None
) -> tuple[Tensor, Tensor]:
    """Improve SparseGPT's mask by :func:`exchange_compensated`; arguments as for ``sparsegpt``."""
    _, mask = sparsegpt(weight, gram, keep, pattern)
    return exchange_compensated(weight, gram, mask, pattern)


class _Row:
    """The weights of one output; tensors are of all inputs, and B is 0 outside of the support."""

    def __init__(self, dense: Float, hessian: Float, kept: npt.NDArray[np.bool_], run: int) -> None:
        self.dense, self.hessian, self.kept, self.run = dense, hessian, kept.copy(), run
        support = np.flatnonzero(kept)
        self.inverse = np.zeros_like(hessian)
        self.inverse[np.ix_(support, support)] = np.linalg.inv(hessian[np.ix_(support, support)])
        sides = dense @ hessian
        self.weight = self.inverse @ sides
        self.rest = sides - self.weight @ hessian
        spread = hessian[:, support] @ self.inverse[np.ix_(support, support)]
        self.schur = hessian.diagonal() - (spread * hessian[:, support]).sum(axis=1)

    @property
    def error(self) -> float:
        """Error of the output."""
        return 0.5 * float(self.rest @ (self.dense - self.weight))

    def exchange(self, candidates: int | None) -> bool:
        """Do the best exchange; return False if none lowers the error."""
        inside, outside = np.flatnonzero(self.kept), np.flatnonzero(~self.kept)
        if not len(inside) or not len(outside):
            return False
        costs = self.weight[inside] ** 2 / self.inverse.diagonal()[inside]
        order = np.argsort(costs, kind="stable")[:candidates]
        out, costs = inside[order], costs[order]
        own = self.inverse[out, out]
        pulls = self.hessian[outside] @ self.inverse[:, out]
        rest = self.rest[outside, None] + pulls * (self.weight[out] / own)
        schur = self.schur[outside, None] + pulls**2 / own
        changes = costs - rest**2 / schur
        changes[outside[:, None] // self.run != out // self.run] = np.inf
        p, q = np.unravel_index(changes.argmin(), changes.shape)
        if not 0.5 * changes[p, q] < -_LEAST * self.error:
            return False
        self._prune(int(out[q]))
        self._keep(int(outside[p]))
        return True

    def _prune(self, q: int) -> None:
        column, own = self.inverse[:, q].copy(), self.inverse[q, q]
        pulls, share = self.hessian @ column, self.weight[q] / own
        self.weight -= share * column
        self.rest += share * pulls
        self.schur += pulls**2 / own
        self.inverse -= np.outer(column, column) / own
        self.inverse[q] = self.inverse[:, q] = 0
        self.weight[q], self.kept[q] = 0, False
        self.rest[q], self.schur[q] = share, 1 / own

    def _keep(self, p: int) -> None:
        change = self.inverse @ self.hessian[:, p]
        change[p] = -1
        schur, value = self.schur[p], self.rest[p] / self.schur[p]
        pulls = self.hessian @ change
        self.weight -= value * change
        self.rest += value * pulls
        self.schur -= pulls**2 / schur
        self.inverse += np.outer(change, change) / schur
        self.kept[p] = True

    def result(self) -> tuple[Float, npt.NDArray[np.bool_]]:
        """Return weights, solved again so that rounding errors don't add up, and the mask."""
        support = np.flatnonzero(self.kept)
        sides = (self.dense @ self.hessian)[support]
        found = np.zeros_like(self.dense)
        found[support] = np.linalg.solve(self.hessian[np.ix_(support, support)], sides)
        return found, self.kept
