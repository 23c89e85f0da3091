"""Descent on a layer's output error by exchanges of a kept and a pruned weight."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from icbs.config.constraints import Pattern


def exchange_weights(
    weight: Tensor, gram: Tensor, mask: Tensor, pattern: Pattern | None = None
) -> Tensor:
    """Minimise ``½ dᵀHd`` for each output by exchanges, with ``d`` its pruned weights.

    This is the block problem of the layer's output error (``curvature="gram"``) with each
    output as a block. With ``c = Hd``, keeping ``p`` and pruning ``q`` instead changes the
    error by ``½w_p²H_pp - w_p c_p + ½w_q²H_qq + w_q c_q - w_p w_q H_pq``. Each kept weight in
    turn is exchanged for its best partner, until no exchange of two weights lowers the error.
    The compiled kernel runs on the CPU on torch's number of threads, which does not affect the
    result.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
        Dense weights.
    gram : Tensor, shape (in, in)
        H, the second moments of the inputs.
    mask : Tensor of bool, shape (out, in)
        Initial mask, True where kept; the number of weights kept in each output stays.
    pattern : Pattern, optional
        N:M pattern of the mask; weights are exchanged within its groups.

    Returns
    -------
    Tensor of bool, shape (out, in)
        True where kept; no output's error is larger than initially.
    """
    from icbs.layerwise.exchange_kernel import exchange_kernel  # loads Numba

    wide = torch.promote_types(weight.dtype, torch.float32)
    w, H = weight.detach().cpu().to(wide), gram.detach().cpu().to(wide)
    kept = mask.cpu().clone(memory_format=torch.contiguous_format)
    pull = torch.where(kept, 0, w) @ H
    run = pattern.run if pattern is not None else w.shape[1]
    threads = torch.get_num_threads()
    parts = [
        [part.numpy() for part in parts]
        for parts in zip(*(t.contiguous().chunk(4 * threads) for t in (w, pull, kept)), strict=True)
    ]
    moments = H.contiguous().numpy()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: exchange_kernel(*part, moments, run), parts))
    return kept.to(mask.device)
