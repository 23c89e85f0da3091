"""Exchanges of two weights of an output, as long as they lower the error of the output."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from icbs.config.constraints import Pattern


def exchange(weight: Tensor, gram: Tensor, mask: Tensor, pattern: Pattern | None = None) -> Tensor:
    """Descend on ``½ dᵀHd`` for each output, ``d`` the weights it has lost.

    The block problem of the layer's own error (``curvature="gram"``) with an output as the
    block. With ``c = Hd`` the return of ``p`` for ``q`` changes the error by
    ``½w_p²H_pp - w_p c_p + ½w_q²H_qq + w_q c_q - w_p w_q H_pq``. One kept weight after the
    other is exchanged for its best partner, until no exchange of any two helps. It runs on
    the CPU, compiled, on as many threads as torch has, and the answer does not depend on them.

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

    Returns
    -------
    Tensor of bool, shape (out, in)
        True where kept; no output's error is above that of the start.
    """
    from icbs.layerwise.descent import descend  # loads Numba

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
        list(pool.map(lambda part: descend(*part, moments, run), parts))
    return kept.to(mask.device)
