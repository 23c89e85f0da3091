"""Random columns of per-sample gradients, by importance, for products of rows.

With columns drawn in proportion to their squared norms and scaled accordingly, the product of the
drawn columns has the smallest variance (Drineas et al. 2006, SIAM J. Comput. 36, 132). A few
inputs of language models are much larger than all others, so that uniform draws would miss most
of the product. The squared norm of the gradient of a weight (r, c) is estimated by the product of
``Σδ_r²`` and ``Σa_c²`` over a few samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icbs.curvature.layer_io import Call
from icbs.model.layer import Layer
from icbs.recovery.row_passes import RowPasses

SAMPLES = 8
"""Samples from which squared norms are estimated."""
UNIFORM = 0.1
"""Share of the draws that are uniform, since the norms are estimates."""


@dataclass
class Drawn:
    """Columns of one layer."""

    index: Tensor
    """Flat indices of kept weights; the same one may be drawn several times."""
    scale: Tensor
    """Factor on each column, float64, for which the expected product is that of all columns."""


def draw_columns(rows: RowPasses, count: int, generator: torch.Generator) -> dict[str, Drawn]:
    """Draw columns of the kept weights of all layers.

    Parameters
    ----------
    rows : RowPasses
    count : int
        Number of columns, about.
    generator : torch.Generator

    Returns
    -------
    dict of str to Drawn
        By layer name; all columns, once, if there are not more than ``count``.
    """
    kept = {layer.name: (~layer.pruned).nonzero().squeeze(1) for layer in rows.layers}
    size = sum(len(index) for index in kept.values())
    if count >= size:
        return {name: Drawn(i, torch.ones(len(i), device=i.device)) for name, i in kept.items()}
    norms = squared_norms(rows, kept)
    mass = sum(float(values.sum()) for values in norms.values())
    found = {}
    for name, index in kept.items():
        if not len(index):
            found[name] = Drawn(index, norms[name])
            continue
        chance = norms[name] * ((1 - UNIFORM) / mass if mass else 0) + UNIFORM / size
        total = float(chance.sum())
        number = max(1, math.ceil(count * total))
        # By the inverse of the distribution: torch.multinomial is limited to 2²⁴ categories.
        ends = chance.cumsum(0)
        at = torch.rand(number, generator=generator, dtype=torch.float64).to(ends.device)
        place = torch.searchsorted(ends, at * ends[-1]).clamp(max=len(index) - 1)
        found[name] = Drawn(index[place], (number * chance[place] / total).rsqrt())
    return found


def squared_norms(rows: RowPasses, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Estimate the squared norms of the columns of kept weights, float64."""
    deltas: dict[str, Tensor] = {}
    features: dict[str, Tensor] = {}

    def add(layer: Layer, call: Call) -> None:
        for trace in call.parts():
            left, right = (
                values.double().square().sum(dim=(0, 1)) for values in (trace.deltas, trace.inputs)
            )
            deltas[layer.name] = deltas.get(layer.name, 0) + left
            features[layer.name] = features.get(layer.name, 0) + right

    rows.run_few(SAMPLES, add)
    found = {}
    for layer in rows.layers:
        index, groups = kept[layer.name], layer.kind.groups
        if layer.name not in deltas:
            found[layer.name] = torch.zeros(len(index), dtype=torch.float64, device=index.device)
            continue
        row, column = layer.unravel(index)
        group = row // (layer.shape[0] // groups)
        right = features[layer.name][group * layer.shape[1] + column]
        found[layer.name] = deltas[layer.name][row] * right
    return found
