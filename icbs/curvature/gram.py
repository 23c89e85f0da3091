"""The error of a layer's output, as a quadratic model of the gates of a few weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from icbs import parallel
from icbs.curvature.layer_io import Call
from icbs.curvature.sources import Curvature, Distortion, Source
from icbs.model.layer import Layer


class Grams:
    """Second moments ``H = XᵀX/T`` of every layer's inputs, gathered during a pass.

    Holds in² numbers a layer.

    Parameters
    ----------
    layers : sequence of Layer
    counted : Tensor of bool, shape (N, T), optional
        Positions that are no padding.
    """

    def __init__(self, layers: Sequence[Layer], counted: Tensor | None) -> None:
        self.counted = counted
        self.totals: dict[str, Tensor] = {}
        self.positions = {layer.name: 0 for layer in layers}
        for layer in layers:
            width = layer.shape[1]
            wide = torch.promote_types(layer.dense.dtype, torch.float32)
            shape = (layer.kind.groups, width, width)
            self.totals[layer.name] = layer.dense.new_zeros(shape, dtype=wide)

    def add(self, layer: Layer, call: Call) -> None:
        """Add a call's samples."""
        start, total = call.start, self.totals[layer.name]
        for trace in call.parts():
            count, places, _ = trace.inputs.shape
            features = trace.inputs.flatten(0, 1).to(total.dtype)
            if self.counted is not None and places == self.counted.shape[1]:
                features = features[self.counted[start : start + count].flatten()]
            split = features.unflatten(1, (layer.kind.groups, -1)).transpose(0, 1)
            total.baddbmm_(split.transpose(1, 2), split)
            self.positions[layer.name] += len(features)
            start += count

    def add_up(self) -> None:
        """Add up over the processes, where there are several."""
        parallel.all_reduce_(*self.totals.values())
        counts = parallel.all_reduced(*self.positions.values())
        self.positions = dict(zip(self.positions, map(int, counts), strict=True))

    def curvature(self, layer: Layer, index: Tensor) -> Curvature:
        """Distortion of a block, and no model of the loss."""
        gram = self.totals[layer.name] / max(1, self.positions[layer.name])
        return Curvature(distortion=distortion(layer, index, gram))


def with_distortion(loss: Source | None, own: Source) -> Source:
    """Join a model of the loss, if there is one, with the layers' own errors."""

    def curvature(layer: Layer, index: Tensor) -> Curvature:
        found = Curvature() if loss is None else loss(layer, index)
        return replace(found, distortion=own(layer, index).distortion)

    return curvature


def distortion(layer: Layer, index: Tensor, gram: Tensor) -> Distortion:
    """Expand ``½‖(W - W⁰)X‖²/T`` about the layer's mask as it stands.

    The gradient of an output's error is ``H(w - w⁰)``, over all of its weights, those
    outside of the block too; the curvature of two gates of one output is ``w⁰_i H_ij w⁰_j``,
    and weights of different outputs don't interact.

    Parameters
    ----------
    layer : Layer
    index : Tensor of int64, shape (b,)
        Flat indices of the block's weights.
    gram : Tensor, shape (groups, in, in)
        H, the second moments of the inputs of each group of outputs.
    """
    rows, columns = layer.unravel(index)
    outputs, row = torch.unique(rows, return_inverse=True)
    gone = layer.pruned.view(layer.shape)[outputs]
    change = torch.where(gone, -layer.dense[outputs], 0).to(gram.dtype)
    group = rows // (layer.shape[0] // len(gram))
    dense = layer.dense[rows, columns].to(gram.dtype)
    gradient, matrix = torch.zeros_like(dense), gram.new_zeros(len(index), len(index))
    for number in torch.unique(group).tolist():
        inside = (group == number).nonzero().squeeze(1)
        at = columns[inside]
        gradient[inside] = (change @ gram[number])[row[inside], at]
        same = rows[inside][:, None] == rows[inside]
        pair = gram[number][at[:, None], at] * same * dense[inside] * dense[inside][:, None]
        matrix[inside[:, None], inside] = pair
    # Products of many numbers in float32 are not quite the same both ways round.
    return Distortion(gradient, (matrix + matrix.T) / 2)
