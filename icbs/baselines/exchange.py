"""Exchanges of two weights of an output, as long as they lower the error of the output."""

from __future__ import annotations

import torch
from torch import Tensor

from icbs.constraints import Pattern

CANDIDATES = 16
"""Weights of either side whose pairs are tried, those that are best on their own."""


def exchange(
    weight: Tensor,
    gram: Tensor,
    mask: Tensor,
    pattern: Pattern | None = None,
    *,
    rounds: int = 100,
) -> Tensor:
    """Descend on ``½ dᵀHd`` for each output, ``d`` the weights it has lost.

    The block problem of the layer's own error (``curvature="gram"``) with an output as the
    block, and its steepest descent by exchanges, for all outputs at once: with ``c = Hd``
    the return of ``p`` for ``q`` changes the error by
    ``½w_p²H_pp - w_p c_p + ½w_q²H_qq + w_q c_q - w_p w_q H_pq``.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
        Dense weights.
    gram : Tensor, shape (in, in)
        H, the second moments of the inputs.
    mask : Tensor of bool, shape (out, in)
        Where to start, True where kept; every output keeps its number of weights.
    pattern : Pattern, optional
        N:M that the mask follows: weights are then exchanged within their runs.
    rounds : int, default 100
        Exchanges an output, at most.

    Returns
    -------
    Tensor of bool, shape (out, in)
        True where kept; no output's error is above that of the start.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    w, H, kept = weight.to(wide), gram.to(wide), mask.clone()
    alone = 0.5 * w.square() * H.diagonal()
    pull = torch.where(kept, 0, w) @ H
    error = 0.5 * (torch.where(kept, 0, w) * pull).sum(dim=1)
    rows = torch.arange(len(w), device=w.device)
    for _ in range(rounds):
        now, push = kept[rows], w[rows] * pull[rows]
        back = (alone[rows] - push).masked_fill_(now, torch.inf)
        out = (alone[rows] + push).masked_fill_(~now, torch.inf)
        if pattern is None:
            change, p, q = _best_pair(w[rows], H, back, out)
        else:
            change, p, q = _best_pair_of_a_run(w[rows], H, back, out, pattern.run)
        # Smaller changes are rounding, which could go round in circles.
        better = change < -1e-6 * error[rows]
        rows, p, q, change = rows[better], p[better], q[better], change[better]
        if not len(rows):
            break
        kept[rows, p], kept[rows, q] = True, False
        pull[rows] += w[rows, q, None] * H[q] - w[rows, p, None] * H[p]
        error[rows] += change
    return kept


def _best_pair(w: Tensor, H: Tensor, back: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least change of the error by an exchange in each output, and who is exchanged."""
    count = min(CANDIDATES, w.shape[1])
    gains, losses = (t.topk(count, dim=1, largest=False) for t in (back, out))
    p, q = gains.indices, losses.indices
    pairs = gains.values[:, :, None] + losses.values[:, None, :]
    pairs -= w.gather(1, p)[:, :, None] * w.gather(1, q)[:, None, :] * H[p[:, :, None], q[:, None]]
    best, place = pairs.flatten(1).min(dim=1)
    first, second = place[:, None] // count, place[:, None] % count
    return best, p.gather(1, first)[:, 0], q.gather(1, second)[:, 0]


def _best_pair_of_a_run(
    w: Tensor, H: Tensor, back: Tensor, out: Tensor, run: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the same with both weights in one run; all pairs are tried."""
    own = torch.arange(len(H), device=H.device).view(-1, run)
    within = H[own[:, :, None], own[:, None, :]]
    first, second, weights = (t.unflatten(1, (-1, run)) for t in (back, out, w))
    pairs = first[..., :, None] + second[..., None, :]
    pairs -= weights[..., :, None] * weights[..., None, :] * within
    best, place = pairs.flatten(1).min(dim=1)
    base = place // (run * run) * run
    return best, base + place // run % run, base + place % run
