"""Operations on the inputs and output gradients of a layer, row by row."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from icbs.curvature.layer_io import Trace


def split(trace: Trace, runs: int) -> Trace:
    """Divide each sample into runs of consecutive positions, padded with zeros at the end."""
    count, places, _ = trace.deltas.shape
    length = math.ceil(places / runs)
    missing = runs * length - places

    def divided(values: Tensor) -> Tensor:
        padded = nn.functional.pad(values, (0, 0, 0, missing)) if missing else values
        return padded.reshape(count * runs, length, values.shape[2])

    return Trace(divided(trace.inputs), divided(trace.deltas), trace.groups)


def weight_gradients(trace: Trace, first: int, chosen: Tensor) -> Tensor:
    """Rows of the weights of some outputs that are chosen, shape (N, chosen)."""
    if trace.groups > 1 or trace.inputs.shape[1] == 1:
        rows, columns = chosen.nonzero(as_tuple=True)
        return trace.columns(rows + first, columns)
    deltas = trace.deltas[:, :, first : first + len(chosen)]
    return (deltas.transpose(1, 2) @ trace.inputs)[:, chosen]


def outputs_of(trace: Trace, matrix: Tensor) -> Tensor:
    """Compute a layer's outputs with another matrix, shape (N, T, out)."""
    matrix = matrix.to(trace.inputs)
    if trace.groups == 1:
        return trace.inputs @ matrix.T
    features = trace.inputs.unflatten(2, (trace.groups, -1))
    split = matrix.unflatten(0, (trace.groups, -1))
    return torch.einsum("ntgc,goc->ntgo", features, split).flatten(2)
