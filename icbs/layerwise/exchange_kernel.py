"""Compiled kernel of the weight exchange."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import fmin, jit

_LEAST = 1e-6
"""Smallest change accepted, as a share of an output's error: rounding errors could cycle."""


@jit
def exchange_kernel(
    weight: npt.NDArray[Any],
    pull: npt.NDArray[Any],
    kept: npt.NDArray[np.bool_],
    moments: npt.NDArray[Any],
    run: int,
) -> None:
    """Exchange weights of every output within groups of ``run`` consecutive weights, in place.

    ``pull`` is the product of the pruned weights with ``moments``, shape (out, in), and is
    updated with ``kept``. Nothing is checked; see
    :func:`icbs.layerwise.weight_exchange.exchange_weights`.
    """
    outputs, width = weight.shape
    number = moments.dtype.type
    none, half = number(np.inf), number(0.5)
    back, own = np.empty(width, moments.dtype), half * np.diag(moments)
    for r in range(outputs):
        w, c, k = weight[r], pull[r], kept[r]
        error = number(0)
        for p in range(width):
            error += number(0) if k[p] else half * w[p] * c[p]
            back[p] = none if k[p] else own[p] * w[p] * w[p] - w[p] * c[p]
        least, quiet, left, q = number(_LEAST) * error, 0, 100 * width, 0
        while quiet < width and left > 0:
            quiet += 1
            if k[q]:
                first = q // run * run
                v, h = w[q], moments[q]
                near = slice(first, min(first + run, width))
                changes, others, row = back[near], w[near], h[near]
                out, lowest = own[q] * v * v + v * c[q], none
                for p in range(len(changes)):
                    lowest = fmin(lowest, changes[p] - v * others[p] * row[p])
                if out + lowest < -least:
                    best, lowest = 0, none
                    for p in range(len(changes)):
                        change = changes[p] - v * others[p] * row[p]
                        if change < lowest:
                            best, lowest = p, change
                    best += first
                    k[q], k[best] = False, True
                    u, g = w[best], moments[best]
                    for p in range(width):
                        c[p] += v * h[p] - u * g[p]
                        change = own[p] * w[p] * w[p] - w[p] * c[p]
                        back[p] = none if k[p] else change
                    quiet, left = 0, left - 1
            q = q + 1 if q + 1 < width else 0
